"""The timer of a device, on one that is imagined: a call takes as long as it says, and events tell that time."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu.itself import check_timer
from benchmarks.gpu.timer import DeviceTimer
from tests.benchmarks.gpu.wall import WallTimer, bench


class Imagined:
    """As much of torch.cuda as the timer uses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.capturing: list[Callable[[], object]] | None = None
        self.refuses = False
        self.allocated = 100
        self.pools: list[Any] = []

    def call(self, seconds: float) -> Callable[[], object]:
        def run() -> None:
            if self.capturing is None:
                self.now += seconds
            elif self.refuses:
                raise RuntimeError("operation not permitted when stream is capturing")
            else:
                self.capturing.append(run)

        return run

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        event = SimpleNamespace(at=0.0, synchronize=lambda: None)
        event.record = lambda: setattr(event, "at", self.now)
        event.elapsed_time = lambda end: 1e3 * (end.at - event.at)
        return event

    @contextmanager
    def graph(self, graph: Any, pool: Any) -> Iterator[None]:
        self.pools.append(pool)
        self.capturing = graph.nodes
        try:
            yield
        finally:
            self.capturing = None


@pytest.fixture
def imagined(monkeypatch: pytest.MonkeyPatch) -> Imagined:
    device = Imagined()

    def graph() -> Any:
        made = SimpleNamespace(nodes=[])
        made.replay = lambda: [node() for node in made.nodes]
        return made

    def peak(_: Any) -> int:
        device.allocated += 7
        return device.allocated + 20

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, instead in {
        "get_device_properties": lambda _: SimpleNamespace(L2_cache_size=1024),
        "Event": device.event,
        "Stream": lambda _: stream,
        "current_stream": lambda _: stream,
        "stream": lambda _: nullcontext(),
        "synchronize": lambda _: None,
        "CUDAGraph": graph,
        "graph": device.graph,
        "graph_pool_handle": lambda: (0, len(device.pools) + 1),
        "memory_allocated": lambda _: device.allocated,
        "max_memory_allocated": peak,
        "reset_peak_memory_stats": lambda _: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, instead)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: SimpleNamespace(zero_=device.call(1e-4)))
    return device


def _timer() -> DeviceTimer:
    return DeviceTimer(torch.device("cpu"), fewest=4, most=4)


def test_short_calls_are_captured_many_at_a_time(imagined: Imagined) -> None:
    timer = _timer()
    assert timer.cache == 1024
    sets = [imagined.call(1e-6), imagined.call(3e-6), imagined.call(5e-6)]
    program = timer.program(sets)
    assert (program.calls, program.how, program.why) == (21, "a graph's replays", "")
    for warm in (False, True):
        found = timer.rounds({"short": program}, seconds=0.0, warm=warm)["short"]
        assert found.rounds == pytest.approx([3e-6] * 4)


def test_long_calls_are_captured_as_they_are(imagined: Imagined) -> None:
    program = _timer().program([imagined.call(4e-3), imagined.call(2e-3)])
    assert program.calls == 2
    found = _timer().rounds({"long": program}, seconds=0.0, warm=True)["long"]
    assert found.rounds == pytest.approx([3e-3] * 4)


def test_a_timing_is_long_enough_for_events(imagined: Imagined) -> None:
    timer = _timer()
    program = timer.program([imagined.call(1.1e-6)])
    before = imagined.now
    timer.rounds({"short": program}, seconds=0.0, warm=False)
    # Of 20 calls a replay it takes 23 replays, four times, beside one that tells how long it is; each after a filler.
    assert imagined.now - before == pytest.approx((4 * 23 + 1) * 22e-6 + 5 * 1e-4)


def test_what_cannot_be_captured_is_called_from_python(imagined: Imagined) -> None:
    imagined.refuses = True
    timer = _timer()
    program = timer.program([imagined.call(1e-4)])
    assert program.how == "calls from Python"
    assert program.why == "RuntimeError: operation not permitted when stream is capturing"
    assert timer.rounds({"": program}, seconds=0.0, warm=True)[""].rounds == pytest.approx([1e-4] * 4)
    with pytest.raises(RuntimeError, match="not permitted"):
        timer.capture(imagined.call(1.0))


def test_a_capture_that_fails_leaves_nothing_behind(imagined: Imagined, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its memory, where it was not given back, nor the default generator's state."""
    done: list[Any] = []
    generator = SimpleNamespace(graphsafe_set_state=done.append)
    fresh = SimpleNamespace(manual_seed=lambda seed: None, graphsafe_get_state=lambda: "fresh")
    monkeypatch.setattr(torch.cuda, "default_generators", (generator,))
    monkeypatch.setattr(torch, "Generator", lambda _: fresh)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        note = partial(lambda name, *given: done.append((name, *given)), name)
        monkeypatch.setattr(torch._C, name, note, raising=False)
    imagined.refuses = True
    _timer().program([imagined.call(1e-4)])
    pool = (0, 1)
    assert done == [("_cuda_endAllocateToPool", 0, pool), ("_cuda_releasePool", 0, pool), "fresh"]
    done.clear()

    def given_back(index: int, pool: Any) -> None:
        raise RuntimeError("not currently recording to this pool")

    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", given_back)
    _timer().program([imagined.call(1e-4)])
    assert done == ["fresh"]


def test_a_capture_is_warmed_up(imagined: Imagined) -> None:
    timer = _timer()
    replay = timer.capture(imagined.call(1.0))
    assert imagined.now == timer.warm_up == 3
    replay()
    assert imagined.now == 4
    timer.capture(imagined.call(1.0), pool=(0, 7))
    assert imagined.pools == [(0, 1), (0, 7)]


@pytest.mark.usefixtures("imagined")
def test_a_replay_keeps_what_it_goes_over() -> None:
    """A graph has the addresses of a call's tensors alone."""

    class Owner:
        def __call__(self) -> None:
            pass

    timer, owner = _timer(), Owner()
    replay, gone = timer.capture(owner), weakref.ref(owner)
    program = timer.program([owner])
    del owner
    gc.collect()
    assert gone() is not None
    del replay
    gc.collect()
    assert gone() is not None
    del program
    gc.collect()
    assert gone() is None


def test_memory_is_what_a_call_takes_more(imagined: Imagined) -> None:
    assert _timer().peak(imagined.call(1.0)) == 27


def test_the_timer_itself(triton_device: torch.device) -> None:
    """On a device where tests have one, and on the CPU what stands in for it."""
    timer = DeviceTimer(triton_device) if triton_device.type == "cuda" else WallTimer()
    found = check_timer(bench(device=triton_device, timer=timer))
    assert found["how"] == "calls from Python"


def test_a_replay_over_memory_that_others_have_is_noticed(triton_device: torch.device) -> None:
    class Loose(WallTimer):
        """Replays write where something was."""

        def capture(self, call: Callable[[], object], *, pool: Any = None) -> Callable[[], object]:
            return lambda: None

    with pytest.raises(RuntimeError, match="memory that belongs to others"):
        check_timer(bench(device=triton_device, timer=Loose()))


def test_sizes_that_do_not_reach_the_launch_are_noticed(
    triton_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu.itself.tried", lambda *_: nullcontext())
    with pytest.raises(RuntimeError, match="that were tried, these reached the launch"):
        check_timer(bench(device=triton_device))
