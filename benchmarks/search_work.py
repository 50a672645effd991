"""What a search adds to training, timed by itself: ResNet-18 on 32x32 images, 11.2 M edges.

    python -m benchmarks.search_work --threads 2 --json search_work.json

The search's own work of a step is selecting, making weights from scores (and recording the selected edges), the
straight-through gradient, and what updating scores costs beyond torch.optim.SGD over dense weights. It is done here
over all layers with nothing between, on gradients laid out as convolutions over channels-last images give them, and
divided by a whole dense step of the same round.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._report import Comparison, Options, Report, command
from benchmarks._timing import Sample, interleaved
from benchmarks.search_step import SGD, check, model_of, step_of
from supermask.edges.in_model import searched_edges
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


def search_work(model: nn.Module, steps: int) -> Callable[[], None]:
    """The search's own work of a step, and the update of the scores; to be called `steps` times."""
    everything = list(searched_edges(model).values())
    optimiser = ScoreSGD(model, **SGD)
    # A step consumes its gradients; copies of one set are as good as new ones.
    first = gradients([edges.shape for edges in everything])
    waiting = [[grad.clone(memory_format=torch.preserve_format) for grad in first] for _ in range(steps)]

    def work() -> None:
        with optimiser.searching():
            weights = [edges(torch.float32) for edges in everything]
            _Sink.apply(waiting.pop(), *weights).backward()
        optimiser.step()
        optimiser.zero_grad()

    return work


def dense_update(model: nn.Module, *, fused: bool) -> Callable[[], None]:
    """torch.optim.SGD over dense weights of the same shapes."""
    weights = [
        nn.Parameter(edges(torch.float32).detach().to(memory_format=_format(edges.shape)))
        for edges in searched_edges(model).values()
    ]
    optimiser = torch.optim.SGD(weights, **SGD, fused=fused)
    for weight, grad in zip(weights, gradients([weight.shape for weight in weights]), strict=True):
        weight.grad = grad
    return lambda: optimiser.step() and None


def _format(shape: Sequence[int]) -> torch.memory_format:
    return torch.channels_last if len(shape) == 4 else torch.contiguous_format


@dataclass(frozen=True, kw_only=True)
class SearchWorkOptions(Options):
    batches: tuple[int, ...] = (128, 32)
    """images of the dense step"""


def run(options: SearchWorkOptions) -> Report:
    """The search's work beside dense steps of each batch size."""
    device = options.where()
    if device.type != "cpu":
        return Report(title="A search's own work", skipped=("it is timed on CPU; benchmarks.gpu times the kernels",))
    keep_freed_memory()
    check(min(options.batches), device)
    rounds, warmup = options.rounds_of(21), 1 if options.quick else 3
    comparisons, notes, facts = [], [], {}
    for batch in options.batches:
        model = model_of("search", device)
        calls = {
            "dense step": step_of(model_of("dense", device), batch, device),
            "search's work and update": search_work(model, rounds + warmup),
            "dense update": dense_update(model, fused=False),
            "dense update, fused": dense_update(model, fused=True),
        }
        samples = interleaved(calls, rounds=rounds, warmup=warmup, device=device)
        checked = "a step moves every layer's scores, and its warm thresholds select what a stable sort does"
        comparisons.append(Comparison(case=f"batch {batch}", base="dense step", seconds=samples, checked=checked))
        for update in ("dense update", "dense update, fused"):
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
