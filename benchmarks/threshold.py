"""Selecting the highest half of 11.2 M scores, the layers of a CIFAR ResNet-18, against what PyTorch and NumPy offer.

    python -m benchmarks.threshold --json threshold.json

The rivals get |score| ready-made and find one value (or order) a layer; none of them breaks ties. `one comparison` is
what merely reading the scores and writing a boolean costs.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks._timing import Sample, environment, interleaved, ratios
from kernels.threshold import select, selected

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


def check(scores: list[Tensor], kept: Tensor) -> None:
    """Raise unless the selection is that of a stable sort."""
    tau, last_tied = select(scores, kept, [None] * len(scores))
    for layer, s in enumerate(scores):
        order = s.abs().reshape(-1).sort(descending=True, stable=True).indices
        expected = torch.zeros(s.numel(), dtype=torch.bool, device=s.device)
        expected[order[: int(kept[layer])]] = True
        found = selected(s, tau[layer], last_tied[layer], absolute=True).reshape(-1)
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


def _table(samples: dict[str, Sample], compared: dict[str, Sample], title: str) -> Table:
    table = Table(title=title, caption="medians with 20 % and 80 % quantiles; ratios within a round")
    for column in ("", "ms", "20 %", "80 %", "times select", "20 %", "80 %"):
        table.add_column(column, justify="right" if column else "left")
    for name, sample in samples.items():
        ms = (f"{seconds * 1e3:.1f}" for seconds in (sample.median, sample.low, sample.high))
        ratio = (f"{value:.2f}" for value in (compared[name].median, compared[name].low, compared[name].high))
        table.add_row(name, *ms, *ratio)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threshold", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--remaining", type=float, default=0.5, help="fraction of the edges to keep")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, help="of PyTorch and of the selection (NumPy uses one)")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    scores = scores_of(RESNET18, device)
    edges = sum(s.numel() for s in scores)
    kept = torch.tensor([max(1, round(options.remaining * s.numel())) for s in scores], device=device)
    check(scores, kept)
    samples = interleaved(candidates(scores, kept), rounds=options.rounds, device=device)
    compared = ratios(samples, "select")
    where = environment(device)
    title = f"{edges / 1e6:.1f} M scores in {len(scores)} layers, {where['name']}, threads: {where['threads']}"
    Console().print(_table(samples, compared, title))
    if options.json is not None:
        report = {
            "benchmark": "threshold",
            "environment": where,
            "edges": edges,
            "layers": len(scores),
            "remaining": options.remaining,
            "seconds": {name: sample.summary() for name, sample in samples.items()},
            "times_select": {name: sample.summary() for name, sample in compared.items()},
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
