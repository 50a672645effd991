"""How many threads a run on the CPU takes: what the user said, what it was begun with, or the fastest for a step."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from supermask.runs.trial import Clock, seconds_of

_SAID = "OMP_NUM_THREADS", "MKL_NUM_THREADS"
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def said() -> bool:
    """Whether the user said how many: in the environment, or by torch.set_num_threads."""
    allowed = _allowed()
    cores = {_core(number) for number in allowed}
    return any(os.environ.get(name) for name in _SAID) or torch.get_num_threads() not in (len(allowed), len(cores))


def counts() -> tuple[int, ...]:
    """Those worth trying: all cores that this process may use, half of them, one."""
    every = len(_allowed())
    return tuple(sorted({every, max(1, every // 2), 1}, reverse=True))


def recorded(environment: Mapping[str, Any] | None) -> int | None:
    """How many a run was begun with, by its environment; None where that does not say."""
    found = (environment or {}).get("threads")
    return found if type(found) is int and found > 0 else None


def fastest(
    step: Callable[[], object],
    among: Sequence[int],
    clock: Clock = time.perf_counter,
    *,
    steps: int = 2,
    warm: bool = True,
) -> tuple[int, dict[int, float]]:
    """The count with which `step` is fastest, which torch takes from here on, and the seconds of each, as `seconds_of`
    finds them."""
    found: dict[int, float] = {}
    for count in among:
        torch.set_num_threads(count)
        found[count] = seconds_of(step, clock, steps=steps, warm=warm)
    best = min(found, key=found.__getitem__)
    torch.set_num_threads(best)
    return best, found


@contextmanager
def restored() -> Iterator[None]:
    """After the block torch takes as many threads as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def _allowed() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def _core(number: int) -> str:
    """The same of two processors that share a core, which torch counts once."""
    try:
        return Path(_SIBLINGS.format(number)).read_text()
    except OSError:
        return str(number)
