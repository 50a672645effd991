"""What searching adds to a dense training step: ResNet-18 on 32x32 images, 11.2 M edges.

    python -m benchmarks.search_step --threads 2 --json search_step.json

Both networks take a step of SGD with momentum on the same random batch, channels-last: forward, cross-entropy,
backward, step. Their batch norms have no scale and shift. The dense one trains its weights; the search selects 30 % of
the edges, makes the weights from them, trains the scores, and records which edges it has tried
(supermask/training/measures.py).
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks._report import Comparison, Options, Report, command
from benchmarks._timing import interleaved
from supermask.edges.in_model import all_edges, searched_edges
from supermask.kernels.base.bits import unpack
from supermask.methods.method import EDGE_POPUP, Method
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.networks.norms import set_norm
from supermask.training import measures
from supermask.training.memory import keep_freed_memory
from supermask.training.score_sgd import ScoreSGD

SGD: dict[str, float] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}


def step_of(
    model: nn.Module, batch: int, device: torch.device, optimiser: torch.optim.SGD | None = None
) -> Callable[[], None]:
    """A training step of `model`, dense or searched, on one random batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, 32, 32, generator=generator).to(device, memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,), generator=generator).to(device)
    if optimiser is None:
        optimiser = ScoreSGD(model, **SGD) if all_edges(model) else torch.optim.SGD(model.parameters(), **SGD)

    def step() -> None:
        with optimiser.searching() if isinstance(optimiser, ScoreSGD) else nullcontext():
            F.cross_entropy(model(images), labels).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def model_of(name: str, device: torch.device, method: Method = EDGE_POPUP) -> nn.Module:
    """The "dense" network, or the "search" one that a method makes of it."""
    torch.manual_seed(0)
    model = Architecture(name="resnet18", arguments={"num_classes": 10}).build()
    model = model.to(device).to(memory_format=torch.channels_last).train()
    if name == "search":
        convert(model, seed=0, remaining=0.3, edges=method.edges)
        measures.track(model)
    else:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                set_norm(module, "non_affine")
    return model


def candidates(batch: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """The two steps, of networks of their own."""
    return {name: step_of(model_of(name, device), batch, device) for name in ("dense", "search")}


def check(batch: int, device: torch.device) -> None:
    """Raise unless steps move every layer's scores and the masks of the thresholds they find are those of a sort."""
    model = model_of("search", device)
    before = {name: edges.scores.detach().clone() for name, edges in searched_edges(model).items()}
    optimiser = ScoreSGD(model, **SGD)
    step = step_of(model, batch, device, optimiser)
    for _ in range(3):
        step()
    with optimiser.searching():
        for name, edges in searched_edges(model).items():
            order = edges.scores.detach().abs().flatten().sort(descending=True, stable=True).indices
            expected = torch.zeros(edges.count, dtype=torch.bool, device=device)
            expected[order[: int(edges.kept)]] = True
            if not torch.equal(unpack(edges.mask(), edges.cols).flatten(), expected):
                raise RuntimeError(f"layer {name} does not select its highest scores")
            if torch.equal(edges.scores, before[name]):
                raise RuntimeError(f"the scores of layer {name} did not move in a step")


@dataclass(frozen=True, kw_only=True)
class SearchStepOptions(Options):
    batches: tuple[int, ...] = (128, 32)
    """images a step"""
    default_allocator: bool = False
    """give freed memory back, as recipes do not"""


def run(options: SearchStepOptions) -> Report:
    """A step of either network, at each batch size."""
    device = options.where()
    if device.type == "cpu" and not options.default_allocator:
        keep_freed_memory()
    check(min(options.batches), device)
    comparisons = []
    for batch in options.batches:
        calls = candidates(batch, device)
        samples = interleaved(calls, rounds=options.rounds_of(21), warmup=1 if options.quick else 3, device=device)
        checked = "a step moves every layer's scores, and its warm thresholds select what a stable sort does"
        comparisons.append(Comparison(case=f"batch {batch}", base="dense", seconds=samples, checked=checked))
    title = "A training step of ResNet-18 on 32x32 images"
    return Report(title=title, comparisons=tuple(comparisons), facts={"remaining": 0.3})


if __name__ == "__main__":
    command(run)
