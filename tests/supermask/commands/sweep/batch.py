"""Runs a command once for each fault, in one process, as `python -m` would: `python -m ...batch CASES RESULTS`.

CASES is a file of JSON: the module, and a list of cases: arguments, what is done to it, and an empty folder each.
RESULTS takes a line of JSON a case: exit status, standard output and error.
"""

import json
import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.supermask.commands.sweep.disturbed import disturbed


def main(cases: Path, results: Path) -> None:
    """Run all cases."""
    asked = json.loads(cases.read_text())
    with results.open("w") as file:
        for case in asked["cases"]:
            found = run(asked["module"], case)
            file.write(json.dumps(found) + "\n")
            file.flush()


def run(module: str, case: dict[str, Any]) -> dict[str, Any]:
    """One case."""
    os.chdir(case["cwd"])
    sys.path[0] = case["cwd"]
    sys.argv = [module, *case["arguments"]]
    how = case["how"]
    with redirected(how) as (out, err):
        with disturbed(how):
            status = status_of(module)
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:
                    stream.flush()
            except OSError:
                status = 120  # the interpreter's
    return {"status": status, "out": drained(out), "err": drained(err)}


def status_of(module: str) -> int:
    """What `python -m MODULE` ends with."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        return 0
    return 1


@contextmanager
def redirected(how: str) -> Iterator[tuple[int, int]]:
    """Within the block the standard streams are pipes, whose read ends are given; `how` may say that nobody reads the
    output, that it or errors are on a full device, or that there is none."""
    ends, streams = [], (sys.stdout, sys.stderr)
    before = os.dup(1), os.dup(2)
    full = {"full": 1, "stderr full": 2}.get(how)
    for number in (1, 2):
        end, to = os.pipe()
        os.set_blocking(end, False)
        if number == 1 and how == "unread":
            os.close(end)
            end = os.open(os.devnull, os.O_RDONLY)
        if number == full:
            os.close(to)
            to = os.open("/dev/full", os.O_WRONLY)
        os.dup2(to, number)
        os.close(to)
        ends.append(end)
    if how.endswith("closed"):
        name = "stderr" if how.startswith("stderr") else "stdout"
        setattr(sys, name, None)
    try:
        yield ends[0], ends[1]
    finally:
        sys.stdout, sys.stderr = streams
        for number, kept in zip((1, 2), before, strict=True):
            os.dup2(kept, number)
            os.close(kept)


def drained(end: int) -> str:
    """What was written to a pipe."""
    parts = []
    try:
        while part := os.read(end, 1 << 16):
            parts.append(part)
    except BlockingIOError:  # a worker that outlives the command holds the other end
        pass
    os.close(end)
    return b"".join(parts).decode()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
