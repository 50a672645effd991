"""Seconds that calls take on the device: between events, captured in CUDA graphs, rivals in turn.

Launching from Python takes longer than many kernels, so what can be captured is replayed as a graph of at least twenty
calls, and what cannot is said to be called from Python. Before each timing a buffer larger than the L2 cache is
written: it empties the cache and keeps the device busy until what is timed is enqueued. A *cold* timing goes on from
there, over so many sets of inputs that none is in the cache when its turn comes again; a *warm* one runs once untimed
before.
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from benchmarks._timing import Sample

__all__ = ["FEWEST", "MOST", "DeviceTimer", "Program", "Replay", "Timer", "first_line", "in_turn"]

Call = Callable[[], object]

FEWEST, MOST = 5, 101
"""Rounds, where nobody asks for another number."""
CALLS = 20  # of a graph, where a call is short
SHORT = 5e-3  # seconds: with more, what surrounds a call weighs nothing
LONG_ENOUGH = 5e-4  # seconds between two events, which tell time to about a microsecond


@dataclass(frozen=True, kw_only=True)
class Program:
    """Something to time."""

    run: Call
    calls: int
    """That it makes."""
    how: str
    """"a graph's replays" or "calls from Python"."""
    why: str = ""
    """It is not captured."""


class Timer(Protocol):
    """What parts know of a device's time; tests have one of their own for a CPU."""

    cache: int
    """Bytes of the L2 cache."""
    warm_up: int
    """Calls that `capture` makes before."""

    def wait(self) -> None:
        """Until the device has done everything; raises what went wrong there."""

    def program(self, calls: Sequence[Call]) -> Program:
        """`calls` one after the other, captured if they can be and repeated while they are short."""

    def capture(self, call: Call, *, pool: Any = None) -> Call:
        """The replay of `call`, captured after `warm_up` calls; raises where it cannot be captured.

        Args:
            pool: of `pool()`, whose memory captures share that are never replayed at once.
        """

    def pool(self) -> Any:
        """Memory for several captures."""

    def rounds(self, programs: Mapping[str, Program], *, seconds: float, warm: bool) -> dict[str, Sample]:
        """Seconds a call, rivals in turn, in as many rounds as go into about `seconds`, within bounds of its own."""

    def peak(self, call: Call) -> int | None:
        """Bytes of device memory that `call` takes at its height, or None where nobody counts them."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A captured call: the graph goes by addresses, and the tensors there live as long as somebody has the call."""

    graph: torch.cuda.CUDAGraph
    call: Call

    def __call__(self) -> None:
        self.graph.replay()


def first_line(error: BaseException) -> str:
    """What an error says, in short, and what the first of those says in whose handling it was raised."""
    first: BaseException = error
    while (before := first.__cause__ or first.__context__) is not None:
        first = before
    said = [
        f"{type(one).__name__}: {(str(one).strip() or '(nothing)').splitlines()[0][:300]}" for one in (error, first)
    ]
    return "; after ".join(dict.fromkeys(said))


def in_turn(
    programs: Mapping[str, Program], timed: Callable[[Program], float], *, seconds: float, fewest: int, most: int
) -> dict[str, Sample]:
    """Every program once a round, in another order each time; rounds as `seconds` allow, `fewest` to `most`."""
    names, order = list(programs), random.Random(0)
    found: dict[str, list[float]] = {name: [] for name in names}
    end = time.monotonic() + seconds
    for count in range(most):
        if count >= fewest and time.monotonic() >= end:
            break
        order.shuffle(names)
        for name in names:
            found[name].append(timed(programs[name]))
    return {name: Sample(rounds=tuple(found[name])) for name in programs}


class DeviceTimer:
    """Of a CUDA or ROCm device."""

    warm_up = 3

    def __init__(self, device: torch.device, *, fewest: int = FEWEST, most: int = MOST) -> None:
        self.device, self.fewest, self.most = device, fewest, most
        self.cache: int = torch.cuda.get_device_properties(device).L2_cache_size
        self._filler = torch.empty(max(1 << 28, 4 * self.cache), dtype=torch.uint8, device=device)
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)

    def program(self, calls: Sequence[Call]) -> Program:
        for call in calls:
            call()  # compiles, plans, allocates
        short = self._seconds(lambda: [call() for call in calls]) < SHORT
        calls = list(calls) * (math.ceil(CALLS / len(calls)) if short else 1)

        def all_of_them() -> None:
            for call in calls:
                call()

        try:
            replay = self.capture(all_of_them, warm_up=1)
        except Exception as error:
            self.wait()
            return Program(run=all_of_them, calls=len(calls), how="calls from Python", why=first_line(error))
        return Program(run=replay, calls=len(calls), how="a graph's replays")

    def capture(self, call: Call, *, pool: Any = None, warm_up: int = warm_up) -> Call:
        stream, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        side.wait_stream(stream)
        with torch.cuda.stream(side):
            for _ in range(warm_up):
                call()
        stream.wait_stream(side)
        self.wait()
        graph, memory = torch.cuda.CUDAGraph(), self.pool() if pool is None else pool
        try:
            with torch.cuda.stream(stream), torch.cuda.graph(graph, pool=memory):  # the outer one is left in any case
                call()
        except Exception:
            self._after_failed_capture(memory)
            raise
        return Replay(graph=graph, call=call)

    def pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def _after_failed_capture(self, pool: Any) -> None:
        """Take back what torch leaves as if a capture went on: where memory comes from, and the default generator."""
        index = torch.device(self.device).index or 0
        with suppress(AttributeError, RuntimeError):  # private; raises where torch has done it
            torch._C._cuda_endAllocateToPool(index, pool)
            torch._C._cuda_releasePool(index, pool)  # as the graph does, but not one that never came to be
        generators = torch.cuda.default_generators
        if index < len(generators) and hasattr(generators[index], "graphsafe_set_state"):
            fresh = torch.Generator(self.device)
            fresh.manual_seed(0)
            with suppress(RuntimeError):  # `facts` says whether it draws again
                generators[index].graphsafe_set_state(fresh.graphsafe_get_state())

    def rounds(self, programs: Mapping[str, Program], *, seconds: float, warm: bool) -> dict[str, Sample]:
        lengths = {id(program): self._seconds(program.run) for program in programs.values()}

        def timed(program: Program) -> float:
            replays = max(1, math.ceil(LONG_ENOUGH / max(lengths[id(program)], 1e-7)))
            before = program.run if warm else None
            return self._seconds(program.run, replays, before) / (replays * program.calls)

        return in_turn(programs, timed, seconds=seconds, fewest=self.fewest, most=self.most)

    def peak(self, call: Call) -> int:
        self.wait()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device) - before

    def _seconds(self, run: Call, times: int = 1, before: Call | None = None) -> float:
        self._filler.zero_()
        if before is not None:
            before()
        self._start.record()
        for _ in range(times):
            run()
        self._end.record()
        self._end.synchronize()
        return self._start.elapsed_time(self._end) / 1e3
