"""What recording costs a search: selected edges at every step, dying ratio and score ranks at every epoch's end.

    python -m benchmarks.recording

One epoch of the digits recipes (31 steps) with the records and without, interleaved; and for ResNet-18 on 32x32 images
the records of an epoch beside its 390 steps, of which one is timed.
"""

from collections.abc import Callable

import torch
from torch import nn

from benchmarks._report import Comparison, Options, Report, command
from benchmarks._timing import interleaved, ratios
from benchmarks.search_step import model_of, step_of
from supermask.data.digits import Digits
from supermask.edges.in_model import searched_edges
from supermask.networks.convert import convert
from supermask.recipes._settings import DIGITS, Mlp
from supermask.training import measures
from supermask.training.loop import Loop
from supermask.training.memory import keep_freed_memory
from supermask.training.traces import Traces

CPU = torch.device("cpu")
STEPS = 390


def records_of(model: nn.Module) -> Callable[[], object]:
    """What an epoch's end records."""
    traces = Traces(model, 0)

    def record() -> None:
        measures.dying(model)
        traces.ranks(model)

    return record


def check(model: nn.Module) -> None:
    """Raise unless the edges that a training forward of `model` selects are recorded."""
    model.train()
    for name, edges in searched_edges(model).items():
        edges(torch.float32)
        mask, ever = edges.mask(), edges.ever
        if ever is None or not torch.equal(mask & ever, mask):
            raise RuntimeError(f"layer {name}: edges are selected that the record of selected edges does not have")


def digits(options: Options) -> tuple[Comparison, str]:
    """An epoch with selected edges recorded and without, and the records of its end."""

    def epoch(recorded: bool) -> tuple[nn.Module, Callable[[], object]]:
        model = convert(Mlp()(10).build(), seed=0, remaining=0.25)
        loop = Loop(model=model, loaded=Digits().open(seed=0, device=CPU), training=DIGITS, device=CPU)
        optimiser = DIGITS.make_optimiser(model)
        if recorded:
            measures.track(model)
        return model, lambda: loop.run_epoch(optimiser, 0.1)

    model, recorded = epoch(True)
    _, bare = epoch(False)
    check(model)
    calls = {"epoch, nothing recorded": bare, "epoch, recorded": recorded, "records at its end": records_of(model)}
    samples = interleaved(calls, rounds=options.rounds_of(61), warmup=3)
    over = ratios(samples, "epoch, nothing recorded")["epoch, recorded"]
    share = ratios(samples, "epoch, recorded")["records at its end"]
    return (
        Comparison(
            case="digits, 31 steps",
            base="epoch, nothing recorded",
            seconds=samples,
            checked="every selected edge is in the record of selected edges",
        ),
        f"digits: recording selected edges makes a step {over.median:.3f} times as long (20 % and 80 % quantiles "
        f"{over.low:.3f} and {over.high:.3f}); records at the end of an epoch take {share.median:.2%} of it",
    )


def resnet18(options: Options) -> tuple[Comparison, str]:
    """A search step at batch 128, and the records of an epoch's end."""
    model = model_of("search", CPU)
    check(model)
    calls = {"step, recorded": step_of(model, 128, CPU), "records at an epoch's end": records_of(model)}
    samples = interleaved(calls, rounds=options.rounds_of(5))
    share = ratios(samples, "step, recorded")["records at an epoch's end"].median / STEPS
    return (
        Comparison(
            case="ResNet-18, batch 128",
            base="step, recorded",
            seconds=samples,
            checked="every selected edge is in the record of selected edges",
        ),
        f"ResNet-18, batch 128: the records at the end of an epoch take {share:.3%} of its {STEPS} steps",
    )


def run(options: Options) -> Report:
    """On CPU, whatever the device asked for."""
    keep_freed_memory()
    small, of_small = digits(options)
    large, of_large = resnet18(options)
    return Report(title="What recording a search costs", comparisons=(small, large), notes=(of_small, of_large))


if __name__ == "__main__":
    command(run)
