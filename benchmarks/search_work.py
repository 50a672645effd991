"""What a search adds to training, timed by itself: ResNet-18 on 32x32 images, 11.2 M edges.

    python -m benchmarks.search_work --threads 2 --json search_work.json
    python -m benchmarks.search_work --threads 2 --optimiser adam

The search's own work of a step is selecting, making weights from scores (and recording the selected edges), the
straight-through gradient, and what updating scores costs beyond torch.optim.SGD, or Adam, over dense weights. It is
done here over all layers with nothing between, on gradients laid out as convolutions over channels-last images give
them, and divided by a whole dense step of the same round.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._report import Comparison, Options, Report, command
from benchmarks._timing import Sample, interleaved
from benchmarks.search_step import SGD, OptimiserName, check, model_of, optimiser_of, step_of
from supermask.edges.in_model import searched_edges
from supermask.edges.selection import selected_once
from supermask.methods.method import EDGE_POPUP, Method
from supermask.training.memory import keep_freed_memory
from supermask.training.score_sgd import ScoreSGD


class _Sink(torch.autograd.Function):
    """A network that does nothing: its backward hands over gradients made beforehand, as their only owner."""

    @staticmethod
    def forward(ctx: Any, grads: list[Tensor], *weights: Tensor) -> Tensor:
        ctx.grads = grads
        return weights[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None
        return None, *(grads.pop(0) for _ in range(len(grads)))


def gradients(shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """One of each weight, small enough to leave the thresholds about where they are."""
    return [(1e-3 * torch.randn(shape)).to(memory_format=_format(shape)) for shape in shapes]


def search_work(
    model: nn.Module, steps: int, name: OptimiserName = "sgd", method: Method = EDGE_POPUP
) -> Callable[[], None]:
    """The search's own work of a step, what `method` does beside, and the update of the scores; to be called `steps`
    times."""
    everything = list(searched_edges(model).values())
    optimiser = optimiser_of(model, name)
    fused = isinstance(optimiser, ScoreSGD) and not method.whole_gradients
    searching = optimiser.searching if fused else partial(selected_once, model)
    numbers, batch = count(), (torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    # A step consumes its gradients; copies of one set are as good as new ones.
    first = gradients([edges.shape for edges in everything])
    waiting = [[grad.clone(memory_format=torch.preserve_format) for grad in first] for _ in range(steps)]

    def network(_: Tensor) -> Tensor:
        weights = [edges(torch.float32) for edges in everything]
        logits: Tensor = _Sink.apply(waiting.pop(), *weights)
        return logits.view(1, 1)

    def work() -> None:
        with torch.no_grad():
            method.before_step(model, next(numbers))
        with searching():
            loss, _ = method.loss(model, network, batch, 0.0)
            loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return work


def dense_updates(model: nn.Module, name: OptimiserName) -> dict[str, Callable[[], None]]:
    """torch's optimisers over dense weights of the same shapes."""
    if name == "adam":
        return {"dense update, fused": _update(model, lambda weights: torch.optim.Adam(weights, lr=1e-3, fused=True))}
    return {
        "dense update": _update(model, lambda weights: torch.optim.SGD(weights, **SGD, fused=False)),
        "dense update, fused": _update(model, lambda weights: torch.optim.SGD(weights, **SGD, fused=True)),
    }


def _update(
    model: nn.Module, optimiser_of_weights: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
) -> Callable[[], None]:
    weights = [
        nn.Parameter(edges(torch.float32).detach().to(memory_format=_format(edges.shape)))
        for edges in searched_edges(model).values()
    ]
    optimiser = optimiser_of_weights(weights)
    for weight, grad in zip(weights, gradients([weight.shape for weight in weights]), strict=True):
        weight.grad = grad
    return lambda: optimiser.step() and None


def _format(shape: Sequence[int]) -> torch.memory_format:
    return torch.channels_last if len(shape) == 4 else torch.contiguous_format


@dataclass(frozen=True, kw_only=True)
class SearchWorkOptions(Options):
    batches: tuple[int, ...] = (128, 32)
    """images of the dense step"""
    optimiser: OptimiserName = "sgd"
    """of both"""


def run(options: SearchWorkOptions) -> Report:
    """The search's work beside dense steps of each batch size."""
    device = options.where()
    if device.type != "cpu":
        return Report(title="A search's own work", skipped=("it is timed on CPU; benchmarks.gpu times the kernels",))
    keep_freed_memory()
    check(min(options.batches), device, options.optimiser)
    rounds, warmup = options.rounds_of(21), 1 if options.quick else 3
    comparisons, notes, facts = [], [], {}
    for batch in options.batches:
        model = model_of("search", device)
        dense = model_of("dense", device)
        updates = dense_updates(model, options.optimiser)
        calls = {
            "dense step": step_of(dense, batch, device, optimiser_of(dense, options.optimiser)),
            "search's work and update": search_work(model, rounds + warmup, options.optimiser),
            **updates,
        }
        samples = interleaved(calls, rounds=rounds, warmup=warmup, device=device)
        checked = "a step moves every layer's scores, and its thresholds select what a stable sort does"
        comparisons.append(Comparison(case=f"batch {batch}", base="dense step", seconds=samples, checked=checked))
        for update in updates:
            each = (samples[name].rounds for name in ("dense step", "search's work and update", update))
            share = Sample(rounds=tuple((w - u) / s for s, w, u in zip(*each, strict=True)))
            notes.append(
                f"batch {batch}: the search's own work, beyond the {update}, is {share.median:.2%} of a dense step "
                f"(20 % and 80 % quantiles {share.low:.2%} and {share.high:.2%})"
            )
            facts[f"share at batch {batch}, beyond the {update}"] = share.summary()
    title = "What a search adds to a dense step of ResNet-18 on 32x32 images, by itself"
    return Report(title=title, comparisons=tuple(comparisons), notes=tuple(notes), facts=facts)


if __name__ == "__main__":
    command(run)
