"""Sizes beside those of the tables (kernels/*/sizes.py), tried on this device; what is faster is printed as a row.

From a table's row one size at a time is halved or doubled (of stages, one more or less), the fastest is taken, and its
neighbours are tried, until nothing is faster by `WORTH`; what was taken is timed against the table's once more before a
row is printed. Every variant is held to the result of the table's own: to the bit where bits are promised. What does
not compile or fit the device is said, and is no failure; nor is what is not tried, because it launches what another
does, or since compiling it and those before took the time.
"""

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks.gpu.bench import Bench, Case, NotHere, Rival
from benchmarks.gpu.errors import check_near
from benchmarks.gpu.itself import launched
from benchmarks.gpu.problems import Call, Problem, TuneSizes, problems
from benchmarks.gpu.timer import first_line
from supermask.kernels.base.sizes import architecture, tried

__all__ = ["BOUNDS", "cases", "neighbours", "row_text", "tune"]

WORTH = 0.97  # of the time of what is there: less is not told from noise
TURNS = 3
BOUNDS: Mapping[str, tuple[int, int]] = {
    "num_warps": (1, 16),
    "num_stages": (1, 5),
    "BLOCK_M": (16, 256),
    "BLOCK_N": (16, 256),
    "BLOCK_R": (4, 128),
    "TILE": (4096, 1 << 17),
    "TILES": (256, 4096),
    "BLOCK": (256, 8192),
    "STRIPS": (1, 16),
    "CALLS": (128, 2048),
}
TABLE, SO_FAR = "the table's", "so far"
UNTRIED = "not tried: the time of this turn is spent"


def neighbours(sizes: Mapping[str, int]) -> Iterator[Mapping[str, int]]:
    """`sizes` with one of them halved or doubled, or a stage more or less, within BOUNDS."""
    for name, size in sizes.items():
        low, high = BOUNDS[name]
        for other in (size - 1, size + 1) if name == "num_stages" else (size // 2, size * 2):
            if low <= other <= high:
                yield {**sizes, name: other}


def row_text(sizes: Mapping[str, int], when: Mapping[str, int | bool]) -> str:
    """A row as a table has it."""
    return f"Row({dict(sizes)}, {dict(when)})".replace("'", '"')


def cases(sizes: TuneSizes) -> list[Case]:
    """Every kernel at its shapes."""
    return [Case(name=problem.name, run=partial(tune, problem=problem)) for problem in problems(sizes)]


def tune(bench: Bench, problem: Problem) -> dict[str, Any]:
    """The way from the table's sizes to faster ones, if there are any."""
    calls, end = problem.make(bench.device, bench.timer.cache), bench.until
    held = [t.clone() for t in _tensors(calls[0]())]
    own = problem.table.row(architecture(), problem.when).sizes
    best, turns, left_out = own, [], 0
    for turn in range(TURNS):
        now = time.monotonic()
        bench.until = now + (end - now) / (TURNS + 1 - turn)
        variants = _others(problem, calls[0], best, own)
        over, found = _turn(bench, problem, calls, held, {} if best is own else {SO_FAR: best}, variants)
        turns.append(found)
        left_out += sum(UNTRIED in one for one in found.get("not here", ()))
        fastest = min(over, key=lambda name: over[name], default=SO_FAR)
        if fastest not in variants or over[fastest] > WORTH * over.get(SO_FAR, 1.0):
            break
        best = variants[fastest]
    bench.until, lines = end, [f"nothing is faster than {dict(own)}"]
    if best is not own:
        over, found = _turn(bench, problem, calls, held, {SO_FAR: best}, {})
        turns.append(found)
        if over.get(SO_FAR, 1.0) > WORTH:
            best = own
        else:
            lines = [f"{over[SO_FAR]:.3f} of the table's time: {row_text(best, problem.when)}"]
    said = {"table": dict(own), "best": dict(best), "when": dict(problem.when), "architecture": architecture()}
    if left_out:
        said["left out"] = f"budget: {left_out} variants not tried (--seconds, --match)"
    return said | {"turns": turns, "lines": lines}


def _others(
    problem: Problem, call: Call, best: Mapping[str, int], own: Mapping[str, int]
) -> dict[str, Mapping[str, int]]:
    """Neighbours of `best` that launch something else than the table, `best`, or one another."""

    def launches(sizes: Mapping[str, int]) -> Any:
        with tried(problem.table.kernel, sizes):
            try:
                return launched(call)
            except Exception:  # it is said of the variant, where it is made
                return sizes

    seen, found = [launches(own), launches(best)], {}
    for other in neighbours(best):
        what = launches(other)
        if what not in seen:
            seen.append(what)
            found[str(dict(other))] = other
    return found


def _turn(
    bench: Bench,
    problem: Problem,
    calls: list[Call],
    held: list[Tensor],
    before: Mapping[str, Mapping[str, int]],
    variants: Mapping[str, Mapping[str, int]],
) -> tuple[dict[str, float], dict[str, Any]]:
    """Medians over the table's, and all that was found; half of the time is for compiling."""
    now = time.monotonic()
    stop = now + (bench.until - now) / 2
    rivals: dict[str, Any] = {TABLE: Rival(calls=calls)}
    for name, sizes in {**before, **variants}.items():
        rivals[name] = partial(_variant, problem, sizes, calls, held, stop if name in variants else bench.until)
    found = bench.compare(rivals, base=TABLE, warm=False)
    return {name: row["over base"]["median"] for name, row in found["rivals"].items() if name != TABLE}, found


def _variant(problem: Problem, sizes: Mapping[str, int], calls: list[Call], held: list[Tensor], stop: float) -> Rival:
    """`calls` with other sizes, the first one's result compared."""
    if time.monotonic() > stop:
        raise NotHere(UNTRIED)

    def other(call: Call) -> Any:
        with tried(problem.table.kernel, sizes):
            return call()

    try:
        found = _tensors(other(calls[0]))
    except Exception as error:  # too many registers, too much shared memory, a shape that the compiler refuses
        raise NotHere(first_line(error)) from error
    for mine, theirs in zip(found, held, strict=True):
        if problem.exact and not torch.equal(mine, theirs):
            raise RuntimeError(f"{problem.name} gives another result with {dict(sizes)}")
        if not problem.exact:
            check_near(problem.name, mine, theirs.double())
    return Rival(calls=[partial(other, call) for call in calls])


def _tensors(result: Any) -> list[Tensor]:
    return [leaf.detach() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
