"""A part's cases, run within its budget, each recorded and printed as it ends.

A case that raises is recorded with its error, and the next one begins; one for which no time is left is recorded as not
run, and one that has to stop before its end says what it left out. After an error the device is tried, and if it is
gone, so that everything else would fail, too, that is said.
"""

import gc
import math
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from benchmarks._timing import Sample, ratios
from benchmarks.gpu.floors import Ceilings, Work
from benchmarks.gpu.record import Run
from benchmarks.gpu.timer import Program, Timer, first_line

__all__ = ["Bench", "Case", "NotHere", "Rival", "Rivals"]

Say = Callable[[str], object]


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


@dataclass(frozen=True, kw_only=True)
class Rival:
    """One of those timed against each other."""

    calls: Sequence[Callable[[], object]] = ()
    """The same over several sets of inputs, one after the other; of a single set the data stay in the cache."""
    work: Work | None = None
    """The least that one call can do; None where nobody says."""
    program: Program | None = None
    """In place of `calls`."""
    held: object = None
    """What the program needs to live as long."""


Rivals = Mapping[str, Rival | Callable[[], Rival]]
"""By name; a function makes one, and may fail alone."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something to check or to time."""

    name: str
    run: Callable[["Bench"], dict[str, Any]]
    """What it found, for the JSON; `lines` are printed, and "left out" is what there was no time for."""


@dataclass(kw_only=True)
class Bench:
    """Where and how a part runs."""

    device: torch.device
    timer: Timer
    measure: Callable[[], Ceilings]
    run: Run
    seconds: float
    """For the part."""
    match: str = ""
    """Cases whose name has not this in it are left out."""
    say: Say = say
    measured: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    not_run: int = field(default=0, init=False)
    """Cases that did not run, or left something out, because time was spent."""
    until: float = field(default=math.inf, init=False)
    """When the case at hand is to end, by time.monotonic."""

    @property
    def counts(self) -> dict[str, int]:
        return {"measured": self.measured, "failed": self.failures, "not run": self.not_run}

    @cached_property
    def ceilings(self) -> Ceilings:
        """Measured when they are asked for first, and recorded with the part."""
        found = self.measure()
        self.run.note(ceilings=found.summary())
        return found

    def run_all(self, cases: Iterable[Case]) -> None:
        """The cases in their order; each gets an equal share of the time that is left."""
        chosen = [case for case in cases if self.match in case.name]
        end = time.monotonic() + self.seconds
        lost = ""
        for index, case in enumerate(chosen):
            self.run.begin(case.name)
            left = end - time.monotonic()
            if lost or left <= 0:
                why = lost or f"budget: the {self.seconds:g} s of this part are spent (--seconds, --match)"
                self.not_run += 1
                self.run.end("not run", why=why)
                self.say(f"{case.name}\n  not run: {why}")
                continue
            self.until = time.monotonic() + left / (len(chosen) - index)
            if not self._one(case) and not self._healthy():
                lost = f"the device failed in {case.name!r}"

    def _one(self, case: Case) -> bool:
        began = time.monotonic()
        self.say(case.name)
        try:
            found = case.run(self)
        except Exception as error:
            self.failures += 1
            self.run.end("failed", error=first_line(error), traceback=traceback.format_exc())
            self.say(f"  FAILED: {first_line(error)}")
            found = None
        else:
            for line in found.pop("lines", ()):
                self.say(f"  {line}")
            self.measured += 1
            if "left out" in found:
                self.not_run += 1
                self.say(f"  not run: {found['left out']}")
            self.run.end("measured", **found, took=time.monotonic() - began)
        self.free()
        return found is not None

    def free(self) -> None:
        """Give back the memory of what is gone."""
        gc.collect()
        try:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        except RuntimeError as error:  # of a device that is lost, which the next case finds, too
            self.say(f"  memory is not given back: {first_line(error)}")

    def _healthy(self) -> bool:
        try:
            float(torch.ones(8, device=self.device).sum())
            self.timer.wait()
        except Exception as error:
            self.say(f"  the device: {first_line(error)}")
            return False
        return True

    def compare(
        self, rivals: Rivals, *, base: str, warm: bool, against: Iterable[tuple[str, str]] = (), **said: Any
    ) -> dict[str, Any]:
        """Time rivals in turn, each beside its floor and over `base`; of one that cannot be made the error is recorded.

        Args:
            against: of two rivals each, the first of which is said to be faster or slower than the second.
            said: more for the record.
        """
        made: dict[str, Rival] = {}
        programs: dict[str, Program] = {}
        failed: dict[str, dict[str, str]] = {}
        for name, rival in rivals.items():
            try:
                made[name] = rival if isinstance(rival, Rival) else rival()
                programs[name] = made[name].program or self.timer.program(made[name].calls)
            except NotHere as error:
                said.setdefault("not here", []).append(f"{name}: {error}")
            except Exception as error:
                self.failures += 1
                failed[name] = {"error": first_line(error), "traceback": traceback.format_exc()}
        _ = self.ceilings  # measured before, not in between
        left = max(0.0, self.until - time.monotonic())
        times = self.timer.rounds(programs, seconds=left, warm=warm) if programs else {}
        over = ratios(times, base) if base in times else {}
        rows = {
            name: self._row(made[name], programs[name], sample, over.get(name), warm=warm)
            for name, sample in times.items()
        }
        pairs = [(ours, theirs) for ours, theirs in against if ours in times and theirs in times]
        verdicts = [(ours, theirs, ratios(times, theirs)[ours]) for ours, theirs in pairs]
        lines = [line(name, row) for name, row in rows.items()]
        lines += [f"{name} FAILED: {one['error']}" for name, one in failed.items()]
        lines += [f"not here: {one}" for one in said.get("not here", [])]
        lines += [_verdict(*one) for one in verdicts]
        if not rows and not failed:
            said["left out"] = "no rival is here"
        told = [{"ours": ours, "theirs": theirs, "ratio": ratio.summary()} for ours, theirs, ratio in verdicts]
        return {"base": base, "warm": warm, "rivals": rows, "failed": failed, "against": told, "lines": lines} | said

    def _row(
        self, rival: Rival, program: Program, sample: Sample, over: Sample | None, *, warm: bool
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"seconds": sample.summary(), "how": program.how, "calls": program.calls}
        if program.why:
            row["not captured"] = program.why
        if rival.work is not None:
            floor = self.ceilings.floor(rival.work, warm=warm)
            row |= {
                "bytes": rival.work.bytes,
                "operations": rival.work.operations,
                "floor": {"memory": floor.memory, "arithmetic": floor.arithmetic, "seconds": floor.seconds},
                "floor by": floor.by,
                "over floor": sample.median / floor.seconds,
            }
        if over is not None:
            row["over base"] = over.summary()
        return row


class NotHere(Exception):
    """A rival that is not installed."""


def line(name: str, row: Mapping[str, Any]) -> str:
    """A row in words."""
    seconds = row["seconds"]
    told = f"{name:<26} {_time(seconds['median'])}  [{_time(seconds['low'])}, {_time(seconds['high'])}]"
    if "over floor" in row:
        told += f"  {row['over floor']:6.2f} x its floor of {_time(row['floor']['seconds'])} ({row['floor by']})"
    if "over base" in row:
        over = row["over base"]
        told += f"  {over['median']:6.3f} of base [{over['low']:.3f}, {over['high']:.3f}]"
    return told + (f"  from Python: {row['not captured']}" if "not captured" in row else "")


def _time(seconds: float) -> str:
    for unit, factor in (("s ", 1), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:7.4g} {unit}"
    return f"{seconds * 1e6:7.4g} us"


def _verdict(ours: str, theirs: str, ratio: Sample) -> str:
    said = "slower than" if ratio.median > 1 else "at least as fast as"
    return f"{ours} is {said} {theirs}: {ratio.median:.3f} of its time [{ratio.low:.3f}, {ratio.high:.3f}]"
