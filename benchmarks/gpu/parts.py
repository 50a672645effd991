"""The parts by name, in the order in which they run, and a run of one of them."""

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks._timing import environment
from benchmarks.gpu import checks, convolutions, facts, floors, passes, products, selection, steps, tune
from benchmarks.gpu.bench import Bench, Case, Say, say
from benchmarks.gpu.flags import as_they_are, held_exact, whole_float32
from benchmarks.gpu.record import Run
from benchmarks.gpu.timer import Timer, first_line

__all__ = ["ASKED_FOR", "PARTS", "Request", "matching", "run_part"]

PARTS: Mapping[str, Callable[[], list[Case]]] = {
    "facts": partial(facts.cases, facts.FactSizes()),
    "checks": partial(checks.cases, checks.CheckSizes()),
    "products": partial(products.cases, products.ProductSizes()),
    "convolutions": partial(convolutions.cases, convolutions.ConvolutionSizes()),
    "selection": partial(selection.cases, selection.SelectionSizes()),
    "passes": partial(passes.cases, passes.PassSizes()),
    "steps": partial(steps.cases, steps.StepSizes()),
    "tune": partial(tune.cases, tune.TuneSizes()),
}
ASKED_FOR = "tune"
"""Runs only where somebody asks for it."""
EXACT = "checks"
"""Compares errors with PyTorch's own; the other parts time PyTorch with the flags that it ships."""


SIZES = floors.Sizes()


def matching(part: str, match: str) -> list[str]:
    """Names of a part's cases that have `match` in them."""
    return [case.name for case in PARTS[part]() if match in case.name]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a run."""

    seconds: float
    match: str = ""
    settings: Mapping[str, Any]
    """Of the command, for the record."""
    json: Path | None = None
    ceilings: floors.Sizes = SIZES


def run_part(
    name: str, cases: Callable[[], list[Case]], request: Request, device: torch.device, timer: Timer, say: Say = say
) -> dict[str, int]:
    """Run the cases of a part, each recorded as it ends; how many were measured, failed and did not run.

    Raises:
        RecordError: the JSON file holds something else.
    """
    about = {
        "part": name,
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "environment": environment(device) | {"card": facts.card(device)},
        "settings": dict(request.settings),
    }
    run, began = Run(request.json, about), time.monotonic()
    say(f"\n{name}: {about['environment']['name']}, commit {about['environment']['commit']}, {about['began']}")
    bench = Bench(
        device=device,
        timer=timer,
        measure=partial(floors.measured, device, timer, request.ceilings),
        run=run,
        seconds=request.seconds,
        match=request.match,
        say=say,
    )
    try:
        with held_exact() if name == EXACT else whole_float32():
            run.note(flags=as_they_are())
            bench.run_all(cases())
    except Exception as error:
        bench.failures += 1
        run.note(error=first_line(error), traceback=traceback.format_exc())
        say(f"{name} FAILED: {first_line(error)}")
    run.note(counts=bench.counts, seconds=time.monotonic() - began)
    return bench.counts
