"""Everything that the machine at hand can run.

    python -m benchmarks --json results.json

Each benchmark runs as `python -m benchmarks.NAME` in a process of its own, one after the other, so that the allocator,
threads and caches of one do not reach into the next; it checks what it times before it times it. A benchmark that
fails is named at the end and does not keep the others from running.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks._flags import parse
from benchmarks._report import Options
from benchmarks._timing import environment

BENCHMARKS = ("threshold", "search_work", "method_work", "search_step", "recording", "packed_linear", "tickets", "gpu")


@dataclass(frozen=True, kw_only=True)
class All(Options):
    only: tuple[str, ...] = ()
    """names of the benchmarks to run, in place of all"""


def flags(options: Options) -> list[str]:
    """The command line of the flags that every benchmark takes."""
    found = ["--quick"] if options.quick else []
    for name in ("device", "rounds", "threads"):
        value = getattr(options, name)
        found += [] if value is None else [f"--{name}", str(value)]
    return found


def run_all(names: Sequence[str], arguments: Sequence[str]) -> tuple[dict[str, Any], dict[str, int]]:
    """What each benchmark wrote, by name, and the exit status of those that failed."""
    found: dict[str, Any] = {}
    failed: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(f"\nbenchmarks.{name}", flush=True)
            path = Path(folder, f"{name}.json")
            command = [sys.executable, "-m", f"benchmarks.{name}", *arguments, "--json", str(path)]
            status = subprocess.run(command, check=False).returncode
            if status or not path.exists():
                failed[name] = status
            else:
                found[name] = json.loads(path.read_text())
    return found, failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: everything ran, or said why it cannot here; 1: something failed."""
    description = (__doc__ or "").partition("\n")[0]
    options = parse(All, arguments, prog="python -m benchmarks", description=description)
    unknown = sorted(set(options.only) - set(BENCHMARKS))
    if unknown:
        print(f"benchmarks: no {', '.join(unknown)}: there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    found, failed = run_all(options.only or BENCHMARKS, flags(options))
    skipped = {name: said["skipped"] for name, said in found.items() if said["skipped"]}
    print()
    for name, reasons in skipped.items():
        for reason in reasons:
            print(f"did not run: {name}: {reason}")
    for name, status in failed.items():
        print(f"failed: {name}, exit status {status}", file=sys.stderr)
    if options.json is not None:
        report = {"environment": environment(torch.device("cpu")), "benchmarks": found, "failed": failed}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
