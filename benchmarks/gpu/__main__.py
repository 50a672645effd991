"""Every kernel on a GPU: checked against the CPU, then timed against libraries and against floors measured on the card.

    python -m benchmarks.gpu --json gpu.json
    python -m benchmarks.gpu --total 540 --only facts checks --json gpu.json
    python -m benchmarks.gpu --only steps --match compiled --seconds 500 --json gpu.json
    python -m benchmarks.gpu --tune --seconds 500 --json gpu.json

From a bare clone: torch, Triton and what the library's layers import are enough. The parts, in their order, are facts,
checks, products, convolutions, selection, passes and steps. Several run in processes of their own, one after the other,
so that a part that hangs or loses the device leaves the others alone. Each lays out its rounds within --seconds, or
within its share of what is left of --total, and says what that did not suffice for; its cases are appended to the JSON
file as they end, and a part can run again into the same file. The last line says how many cases were measured, failed
and did not run.

Exit status 0: everything that was asked for ran, or there is no CUDA or ROCm device and it was said what did not run;
2: the command is wrong; 3: nothing failed, but time did not suffice for everything; 4: something failed. (1 is Python's
own, of an error that nobody caught.)
"""

import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks._flags import parse
from benchmarks._report import QUICK_ROUNDS, Options
from benchmarks.gpu.bench import say
from benchmarks.gpu.parts import ASKED_FOR, PARTS, Request, matching, run_part
from benchmarks.gpu.record import RecordError, last_counts, note_end, note_skipped
from benchmarks.gpu.timer import FEWEST, MOST, DeviceTimer

GRACE = 60.0  # seconds for the start of a process and the case at hand
START = 12.0  # seconds of a process before its first case, and after its last
LEAST = 5.0  # seconds that a part is given in any case
UNFINISHED, FAILED = 3, 4
"""Exit statuses."""


@dataclass(frozen=True, kw_only=True)
class GpuOptions(Options):
    only: tuple[str, ...] = ()
    """parts to run, in place of all: facts, checks, products, convolutions, selection, passes, steps"""
    tune: bool = False
    """try other sizes for the kernels (kernels/*/sizes.py), and print the rows that are faster here; the part tune"""
    match: str = ""
    """run the cases alone whose name has this in it"""
    seconds: float = 110.0
    """for each part"""
    total: float | None = None
    """for all parts together, in place of --seconds: each has an equal share of what is left"""


def why_not(options: GpuOptions) -> str:
    """Why nothing can run here; empty where something can."""
    if not torch.cuda.is_available():
        if options.device == "cuda":
            raise ValueError("--device cuda: torch finds no CUDA or ROCm device here; run it where there is one")
        return "no CUDA or ROCm device here"
    return "--device cpu" if options.device == "cpu" else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    description = (__doc__ or "").partition("\n")[0]
    options = parse(GpuOptions, arguments, prog="python -m benchmarks.gpu", description=description)
    try:
        parts = _parts(options)
        if why := why_not(options):
            said = f"{why}: no kernel checked against the CPU nor timed ({', '.join(parts)})"
            say(f"did not run: {said}")
            if options.json is not None:
                note_skipped(options.json, said)
            return 0
        counts = _one(parts[0], options) if len(parts) == 1 else _each(parts, options)
    except (RecordError, ValueError, OSError) as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2
    say(f"\n{counts['measured']} measured, {counts['failed']} failed, {counts['not run']} not run")
    return status_of(counts)


def status_of(counts: Mapping[str, int]) -> int:
    """The exit status."""
    return FAILED if counts["failed"] else UNFINISHED if counts["not run"] else 0


def _parts(options: GpuOptions) -> tuple[str, ...]:
    """Those that are asked for and have a case of that name.

    Raises:
        ValueError: there is none, or what is asked contradicts itself.
    """
    if options.tune and options.only:
        raise ValueError(f"--tune with --only {' '.join(options.only)}: give one of them; --only {ASKED_FOR} is --tune")
    asked = options.only or ((ASKED_FOR,) if options.tune else tuple(name for name in PARTS if name != ASKED_FOR))
    if unknown := sorted(set(asked) - set(PARTS)):
        raise ValueError(f"no part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    for name, given in (("--seconds", options.seconds), ("--total", options.total)):
        if given is not None and not (given > 0 and math.isfinite(given)):
            raise ValueError(f"{name} {given:g}: expected a number of seconds above 0")
    for flag, count in (("--rounds", options.rounds), ("--threads", options.threads)):
        if count is not None and count < 1:
            raise ValueError(f"{flag} {count}: expected at least 1")
    found = tuple(part for part in asked if matching(part, options.match))
    if not found:
        names = "; ".join(name for part in asked for name in matching(part, "")[:3])
        raise ValueError(f"no case of {', '.join(asked)} has {options.match!r} in its name; some names: {names}")
    return found


def _one(part: str, options: GpuOptions) -> Mapping[str, int]:
    """Run one part here; how many cases were measured, failed and did not run."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    seconds = options.seconds if options.total is None else max(LEAST, options.total - START)
    device = torch.device("cuda", torch.cuda.current_device())
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else None)
    timer = DeviceTimer(device, fewest=rounds or FEWEST, most=rounds or MOST)
    asked = {"seconds": seconds, "match": options.match, "rounds": rounds, "threads": torch.get_num_threads()}
    request = Request(seconds=seconds, match=options.match, settings=asked, json=options.json)
    return run_part(part, PARTS[part], request, device, timer)


def _each(parts: Sequence[str], options: GpuOptions) -> Mapping[str, int]:
    """Run parts in processes of their own; as `_one`, of all of them."""
    end = None if options.total is None else time.monotonic() + options.total
    counts, died = Counter({"measured": 0, "failed": 0, "not run": 0}), []
    with TemporaryDirectory() as folder:
        path = options.json or Path(folder) / "gpu.json"
        for index, part in enumerate(parts):
            seconds, patience = options.seconds, 2 * options.seconds + GRACE
            if end is not None:
                left = end - time.monotonic()
                seconds = max(LEAST, left / (len(parts) - index) - START)
                patience = max(left, seconds) + GRACE / 2
            ended = _process(part, replace(options, seconds=seconds, json=path), patience)
            found = last_counts(path, part) if not ended else {}
            counts.update(found or {"failed": 1})
            if ended:
                note_end(path, part, ended)
                died.append(f"{part} ({ended})")
    if died:
        say(f"\ndid not come to their ends: {', '.join(died)}")
    return counts


def _process(part: str, options: GpuOptions, patience: float) -> str:
    """Run a part in a process; how it ended, if not by itself."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--only", part, *_flags(options)]
    try:
        status = subprocess.run(command, check=False, timeout=patience).returncode
    except subprocess.TimeoutExpired as error:
        return f"killed after {error.timeout:g} s"
    return "" if status in (0, UNFINISHED, FAILED) else f"exit status {status}"


def _flags(options: GpuOptions) -> list[str]:
    """What a part is asked."""
    found = ["--seconds", str(options.seconds)] + ["--quick"] * options.quick
    given = {"match": options.match, "rounds": options.rounds, "threads": options.threads, "json": options.json}
    for name, value in given.items():
        found += [] if value in (None, "") else [f"--{name}", str(value)]
    return found


if __name__ == "__main__":
    sys.exit(main())
