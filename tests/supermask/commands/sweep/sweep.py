"""A command put to every fault, and judged."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.recipes.command import run
from tests.supermask.commands.sweep.columns import Fault
from tests.supermask.commands.sweep.rows import Row


class Outcome(NamedTuple):
    """How a command took a fault: its status, and what is wrong with that, if anything."""

    fault: Fault
    status: int
    wrong: list[str]


def put(row: Row, inputs: Path, scratch: Path, faults: Sequence[Fault]) -> list[Outcome]:
    """Those of the faults that can befall the command."""
    cases = []
    for number, fault in enumerate(faults):
        given = fault.given(row, inputs)
        if given is not None:
            cwd = scratch / f"{number:02}"
            cwd.mkdir()
            words = [*row.words, *map(str, given)]
            cases.append((fault, {"arguments": words, "how": fault.how, "cwd": str(cwd)}))
    asked, results = scratch / "cases.json", scratch / "results.jsonl"
    asked.write_text(json.dumps({"module": row.module, "cases": [case for _, case in cases]}))
    before = contents(inputs)
    done = run("tests.supermask.commands.sweep.batch", asked, results, cwd=scratch)
    found = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    assert len(found) == len(cases), (
        f"{row.name}: {cases[len(found)][0].name} ended all: {done.returncode} {done.stderr}"
    )
    assert contents(inputs) == before, f"{row.name} changed what it was given"
    return [
        Outcome(fault, got["status"], list(judged(fault, case, got)))
        for (fault, case), got in zip(cases, found, strict=True)
    ]


def judged(fault: Fault, case: dict[str, Any], got: dict[str, Any]) -> Iterator[str]:
    """What is wrong with how a command ended."""
    said, out = got["err"], got["out"]
    if got["status"] != fault.status:
        yield f"status {got['status']}, not {fault.status}: {said[-1500:]}"
    if "Traceback" in said:
        yield f"a traceback: {said[-1500:]}"
    lines = [line for line in said.splitlines() if line.strip()]
    if fault.parsed and said.startswith("╭"):
        if out:
            yield f"said on standard output: {out!r}"
    elif len(lines) != (fault.status not in (0, 141)):
        yield f"{len(lines)} lines on standard error: {said[-1500:]}"
    if "--json" in case["arguments"] and out:
        try:
            json.loads(out)
        except ValueError:
            yield f"half of a JSON: {out!r}"
    left = sorted(str(path) for path in Path(case["cwd"]).rglob("*"))
    if left and (not fault.stays or any(name.endswith(".unfinished") for name in left)):
        yield f"left behind: {left}"


def contents(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What there is, and when it was changed."""
    found = {str(path): path.lstat() for path in folder.rglob("*")}
    return {path: (stat.st_mode, stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}
