"""What recording costs a search: selected edges at every step, dying ratio and score ranks at every epoch's end.

    python -m benchmarks.recording

One epoch of the digits recipes (31 steps) with the records and without, interleaved; and for ResNet-18 on 32x32 images
the records of an epoch beside its 390 steps, of which one is timed.
"""

import argparse
import time
from collections.abc import Callable

import torch
from rich.console import Console

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


def digits() -> dict[str, Sample]:
    """Seconds of an epoch, without records and with them."""

    def epoch(recorded: bool) -> Callable[[], object]:
        model = convert(Mlp()(10).build(), seed=0, remaining=0.25)
        loop = Loop(model=model, loaded=Digits().open(seed=0, device=CPU), training=DIGITS, device=CPU)
        optimiser = DIGITS.optimiser(model)
        traces = Traces(model, 0)
        if recorded:
            measures.track(model)

        def run() -> None:
            loop.run_epoch(optimiser, 0.1)
            if recorded:
                measures.dying(model)
                traces.ranks(model)

        return run

    return interleaved({"bare": epoch(False), "recorded": epoch(True)}, rounds=61, warmup=3)


def resnet18() -> tuple[float, float]:
    """Seconds of a search step at batch 128, and of the records of an epoch."""
    step = interleaved({"search": candidates(128, CPU)["search"]}, rounds=3)["search"].median
    model = convert(Architecture(name="resnet18").build(), seed=0, remaining=0.3)
    measures.track(model)
    traces = Traces(model, 0)
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        measures.dying(model)
        traces.ranks(model)
        taken.append(time.perf_counter() - began)
    return step, Sample(rounds=tuple(taken)).median


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording", description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    torch.set_num_threads(parser.parse_args().threads)
    keep_freed_memory()
    console = Console(highlight=False)
    samples = digits()
    ratio = ratios(samples, "bare")["recorded"]
    console.print(
        f"digits: an epoch takes {samples['bare'].median * 1e3:.1f} ms, with records {ratio.median:.3f} times as long "
        f"(20 % and 80 % quantiles {ratio.low:.3f}, {ratio.high:.3f})"
    )
    step, records = resnet18()
    console.print(
        f"ResNet-18, batch 128: a step takes {step * 1e3:.0f} ms, the records of an epoch {records * 1e3:.0f} ms, "
        f"{records / (STEPS * step):.2%} of its {STEPS} steps"
    )


if __name__ == "__main__":
    main()
