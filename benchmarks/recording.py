"""What recording costs a search: selected edges at every step, dying ratio and score ranks at every epoch's end.

    python -m benchmarks.recording

One epoch of the digits recipes (31 steps) with the records and without, interleaved; and for ResNet-18 on 32x32 images
the records of an epoch beside its 390 steps, of which one is timed.
"""

import argparse
from collections.abc import Callable

import torch
from rich.console import Console
from torch import nn

from benchmarks._timing import Sample, interleaved, ratios
from benchmarks.search_step import candidates
from recipes._settings import DIGITS, Mlp
from supermask import convert, measures
from supermask.data import Digits
from supermask.memory import keep_freed_memory
from supermask.networks import Architecture
from supermask.traces import Traces
from supermask.train import Loop

CPU = torch.device("cpu")
STEPS = 390


def records_of(model: nn.Module) -> Callable[[], object]:
    """What an epoch's end records."""
    traces = Traces(model, 0)

    def record() -> None:
        measures.dying(model)
        traces.ranks(model)

    return record


def digits() -> tuple[Sample, float, float]:
    """An epoch with selected edges recorded over one without; seconds of an epoch, and of the records at its end."""

    def epoch(recorded: bool) -> tuple[nn.Module, Callable[[], object]]:
        model = convert(Mlp()(10).build(), seed=0, remaining=0.25)
        loop = Loop(model=model, loaded=Digits().open(seed=0, device=CPU), training=DIGITS, device=CPU)
        optimiser = DIGITS.optimiser(model)
        if recorded:
            measures.track(model)
        return model, lambda: loop.run_epoch(optimiser, 0.1)

    model, recorded = epoch(True)
    _, bare = epoch(False)
    calls = {"bare": bare, "recorded": recorded, "records": records_of(model)}
    samples = interleaved(calls, rounds=61, warmup=3)
    return ratios(samples, "bare")["recorded"], samples["recorded"].median, samples["records"].median


def resnet18() -> tuple[float, float]:
    """Seconds of a search step at batch 128, and of the records of an epoch's end."""
    model = convert(Architecture(name="resnet18").build(), seed=0, remaining=0.3)
    measures.track(model)
    calls = {"step": candidates(128, CPU)["search"], "records": records_of(model)}
    samples = interleaved(calls, rounds=5)
    return samples["step"].median, samples["records"].median


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording", description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    torch.set_num_threads(parser.parse_args().threads)
    keep_freed_memory()
    console = Console(highlight=False)
    ratio, epoch, records = digits()
    console.print(
        f"digits: recording selected edges makes a step {ratio.median:.3f} times as long (20 % and 80 % quantiles "
        f"{ratio.low:.3f} and {ratio.high:.3f}); records at the end of an epoch take {records / epoch:.2%} of it",
        soft_wrap=True,
    )
    step, records = resnet18()
    console.print(
        f"ResNet-18, batch 128: a step takes {step * 1e3:.0f} ms, the records at the end of an epoch "
        f"{records * 1e3:.0f} ms, {records / (STEPS * step):.3%} of its {STEPS} steps",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
