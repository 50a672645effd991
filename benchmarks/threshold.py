"""Selecting the highest half of 11.2 M scores, the layers of a CIFAR ResNet-18, against what PyTorch and NumPy offer.

    python -m benchmarks.threshold --json threshold.json

The rivals get |score| ready-made and find one value (or order) a layer; none of them breaks ties. `one comparison` is
what merely reading the scores and writing a boolean costs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks._report import Comparison, Options, Report, command
from benchmarks._timing import interleaved
from supermask.kernels.base.keys import Threshold
from supermask.kernels.select.op import select, selected

RESNET18: list[tuple[int, ...]] = [
    (64, 3, 3, 3),
    *[(64, 64, 3, 3)] * 4,
    *[(128, 64, 3, 3), (128, 128, 3, 3), (128, 64, 1, 1), (128, 128, 3, 3), (128, 128, 3, 3)],
    *[(256, 128, 3, 3), (256, 256, 3, 3), (256, 128, 1, 1), (256, 256, 3, 3), (256, 256, 3, 3)],
    *[(512, 256, 3, 3), (512, 512, 3, 3), (512, 256, 1, 1), (512, 512, 3, 3), (512, 512, 3, 3)],
    (10, 512),
]


def scores_of(shapes: list[tuple[int, ...]], device: torch.device) -> list[Tensor]:
    """Scores as a search begins with them: uniform within 1 / sqrt(fan_in)."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.rand(shape, generator=generator) * 2 - 1 for shape in shapes]
    return [(s / math.sqrt(math.prod(s.shape[1:]))).to(device) for s in made]


def by_sort(scores: Tensor, kept: int) -> Tensor:
    """The `kept` highest by magnitude, ties by index, from a stable sort: boolean, flat."""
    flat = scores.detach().abs().reshape(-1)
    chosen = torch.zeros(flat.numel(), dtype=torch.bool, device=flat.device)
    chosen[flat.sort(descending=True, stable=True).indices[:kept]] = True
    return chosen


def check(scores: list[Tensor], kept: Tensor) -> None:
    """Raise unless the selection is that of a stable sort."""
    thresholds = select(scores, kept, [None] * len(scores))
    for layer, s in enumerate(scores):
        expected = by_sort(s, int(kept[layer]))
        threshold = Threshold(*(each[layer] for each in thresholds))
        found = selected(s, threshold, absolute=True).reshape(-1)
        if not torch.equal(found, expected):
            raise RuntimeError(f"layer {layer} of shape {tuple(s.shape)}: {int((found != expected).sum())} edges wrong")


def candidates(scores: list[Tensor], kept: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed, all layers a call."""
    survivors = [None] * len(scores)
    counts: list[int] = kept.tolist()
    flat = [s.abs().reshape(-1) for s in scores]
    jobs = list(zip(flat, counts, strict=True))
    found: dict[str, Callable[[], object]] = {"select": lambda: select(scores, kept, survivors)}
    if kept.device.type == "cpu":
        arrays = [(s.numpy(), s.numel() - k) for s, k in jobs]
        found["numpy.partition"] = lambda: [np.partition(s, split) for s, split in arrays]
    return found | {
        "one comparison": lambda: [s > 0.5 for s in flat],
        "torch.kthvalue": lambda: [s.kthvalue(s.numel() - k + 1) for s, k in jobs],
        "torch.topk": lambda: [s.topk(k, sorted=False) for s, k in jobs],
        "torch.sort": lambda: [s.sort() for s in flat],
    }


@dataclass(frozen=True, kw_only=True)
class ThresholdOptions(Options):
    remaining: float = 0.5
    """fraction of the edges to keep"""


def run(options: ThresholdOptions) -> Report:
    """Every layer's threshold, all layers a call."""
    device = options.where()
    scores = scores_of(RESNET18, device)
    edges = sum(s.numel() for s in scores)
    kept = torch.tensor([max(1, round(options.remaining * s.numel())) for s in scores], device=device)
    check(scores, kept)
    samples = interleaved(candidates(scores, kept), rounds=options.rounds_of(11), device=device)
    case = f"{edges / 1e6:.1f} M scores in {len(scores)} layers, {options.remaining:.0%} kept"
    return Report(
        title="Selecting the highest scores",
        comparisons=(
            Comparison(case=case, base="select", seconds=samples, checked="the edges of a stable sort, layer by layer"),
        ),
        facts={"edges": edges, "layers": len(scores), "remaining": options.remaining},
    )


if __name__ == "__main__":
    command(run)
