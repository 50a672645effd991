"""What searching adds to a dense training step: ResNet-18 on 32x32 images, 11.2 M edges.

    python -m benchmarks.search_step --json search_step.json

Both networks take a step of SGD with momentum on the same random batch, channels-last: forward, cross-entropy,
backward, step. Their batch norms have no scale and shift. The dense one trains its weights; the search selects 30 % of
the edges, makes the weights from them, trains the scores, and records which edges it has tried (supermask/measures.py).
"""

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks._timing import Sample, environment, interleaved, ratios
from supermask import convert, measures
from supermask.convert import set_norm, trained_parameters
from supermask.memory import keep_freed_memory
from supermask.networks import Architecture
from supermask.selection import all_edges, one_selection


def step_of(model: nn.Module, batch: int, device: torch.device) -> Callable[[], None]:
    """A training step of `model`, dense or searched, on one random batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, 32, 32, generator=generator).to(device, memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,), generator=generator).to(device)
    optimiser = torch.optim.SGD(trained_parameters(model), lr=0.01, momentum=0.9)
    searched = bool(all_edges(model))

    def step() -> None:
        with one_selection(model) if searched else nullcontext():
            F.cross_entropy(model(images), labels).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def candidates(batch: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """The two steps, of networks of their own."""
    models = {}
    for name in ("dense", "search"):
        torch.manual_seed(0)
        model = Architecture(name="resnet18", arguments={"num_classes": 10}).build()
        models[name] = model.to(device).to(memory_format=torch.channels_last).train()
    convert(models["search"], seed=0, remaining=0.3)
    for module in models["dense"].modules():
        if isinstance(module, nn.BatchNorm2d):
            set_norm(module, "non_affine")
    measures.track(models["search"])
    return {name: step_of(model, batch, device) for name, model in models.items()}


def _table(results: dict[int, tuple[dict[str, Sample], Sample]], title: str) -> Table:
    table = Table(title=title, caption="medians with 20 % and 80 % quantiles; ratios within a round")
    for column in ("batch", "dense ms", "search ms", "search / dense", "20 %", "80 %"):
        table.add_column(column, justify="right")
    for batch, (samples, ratio) in results.items():
        ms = (f"{samples[name].median * 1e3:.0f}" for name in ("dense", "search"))
        table.add_row(str(batch), *ms, *(f"{value:.3f}" for value in (ratio.median, ratio.low, ratio.high)))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_step", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 32], metavar="IMAGES")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, help="of PyTorch and of the selection")
    parser.add_argument("--default-allocator", action="store_true", help="give freed memory back, as recipes do not")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()

    if options.device == "cpu" and not options.default_allocator:
        keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    results = {}
    for batch in options.batches:
        samples = interleaved(candidates(batch, device), rounds=options.rounds, warmup=3, device=device)
        results[batch] = samples, ratios(samples, "dense")["search"]
    where = environment(device)
    title = f"A training step of ResNet-18 on 32x32 images, {where['name']}, threads: {where['threads']}"
    Console().print(_table(results, title))
    if options.json is not None:
        report = {
            "benchmark": "search_step",
            "environment": where,
            "remaining": 0.3,
            "batches": {
                batch: {
                    "seconds": {name: sample.summary() for name, sample in samples.items()},
                    "search_over_dense": ratio.summary(),
                }
                for batch, (samples, ratio) in results.items()
            },
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
