"""What a benchmark takes, what it returns, and how that is printed and written.

A benchmark is a module with `run(options) -> Report`, which checks that what it will time is right before it times it,
and ends in `command(run)`. Fields of a module's own subclass of `Options` become flags of its command.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from rich.console import Console
from rich.table import Table

from benchmarks._flags import parse
from benchmarks._timing import Sample, environment, ratios

__all__ = ["Comparison", "Options", "Report", "command", "show"]

QUICK_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every benchmark takes."""

    device: Literal["cpu", "cuda"] | None = None
    """where to run; by default the GPU where there is one"""
    rounds: int | None = None
    """timed calls of each candidate, in place of the benchmark's own number"""
    quick: bool = False
    """few rounds: shows that everything runs, too few for figures"""
    threads: int | None = None
    """of PyTorch and of the kernels"""
    json: Path | None = None
    """write the numbers here too"""

    def where(self) -> torch.device:
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def rounds_of(self, usual: int) -> int:
        """How many rounds to time where `usual` are enough for figures."""
        return self.rounds or (min(QUICK_ROUNDS, usual) if self.quick else usual)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rivals timed in the same rounds."""

    case: str
    """What was done, as `1 row of 4096 x 4096`."""
    base: str
    """The rival that the others' times are divided by, round by round."""
    seconds: Mapping[str, Sample]
    """By rival."""
    checked: str
    """What was found right before the timing."""

    def __post_init__(self) -> None:
        if self.base not in self.seconds:
            raise ValueError(f"case {self.case!r}: base {self.base!r} is not among {list(self.seconds)}")

    def over_base(self) -> dict[str, Sample]:
        return ratios(self.seconds, self.base)

    def summary(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "checked": self.checked,
            "base": self.base,
            "seconds": {name: sample.summary() for name, sample in self.seconds.items()},
            "over_base": {name: sample.summary() for name, sample in self.over_base().items()},
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a benchmark found."""

    title: str
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences for below the table."""
    skipped: tuple[str, ...] = ()
    """What did not run, and why."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else belongs in the JSON: sizes, rates."""

    def summary(self, device: torch.device) -> dict[str, Any]:
        return {
            "title": self.title,
            "environment": environment(device),
            "comparisons": [comparison.summary() for comparison in self.comparisons],
            "notes": list(self.notes),
            "skipped": list(self.skipped),
            "facts": dict(self.facts),
        }


def _table(report: Report, where: Mapping[str, Any]) -> Table:
    rounds = sorted({len(sample.rounds) for one in report.comparisons for sample in one.seconds.values()})
    table = Table(
        title=f"{report.title}\n{where['name']}, threads: {where['threads']}",
        caption=f"medians with 20 % and 80 % quantiles of {', '.join(map(str, rounds))} rounds; ratios within a round",
    )
    for column in ("", "ms", "20 %", "80 %", "ratio", "20 %", "80 %"):
        table.add_column(column, justify="right" if column else "left")
    for comparison in report.comparisons:
        table.add_row(f"[bold]{comparison.case}[/bold], over {comparison.base}")
        over = comparison.over_base()
        for name, sample in comparison.seconds.items():
            ms = (f"{seconds * 1e3:.4g}" for seconds in (sample.median, sample.low, sample.high))
            ratio = (f"{value:.3g}" for value in (over[name].median, over[name].low, over[name].high))
            table.add_row(f"  {name}", *ms, *ratio)
        table.add_section()
    return table


def show(report: Report, device: torch.device, console: Console | None = None) -> None:
    """Print the report."""
    console = console or Console(highlight=False)
    if report.comparisons:
        console.print(_table(report, environment(device)))
        for checked in dict.fromkeys(comparison.checked for comparison in report.comparisons):
            console.print(f"checked before timing: {checked}", soft_wrap=True)
    for note in report.notes:
        console.print(note, soft_wrap=True)
    for skipped in report.skipped:
        console.print(f"did not run: {skipped}", soft_wrap=True)


Opts = TypeVar("Opts", bound=Options)


def command(run: Callable[[Opts], Report], arguments: list[str] | None = None) -> None:
    """The command line of a benchmark module: flags into options, run, print, write."""
    (parameter,) = inspect.signature(run).parameters.values()
    module = inspect.getmodule(run)
    doc = (module.__doc__ if module is not None else None) or ""
    options: Opts = parse(parameter.annotation, arguments, description=doc.partition("\n")[0])
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    report = run(options)
    show(report, options.where())
    if options.json is not None:
        options.json.write_text(json.dumps(report.summary(options.where()), indent=1) + "\n")
