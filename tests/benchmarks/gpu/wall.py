"""What stands in for a GPU in these tests: the CPU, its kernels interpreted, timed by a clock on the wall."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._timing import Sample
from benchmarks.gpu.bench import Bench, Case
from benchmarks.gpu.floors import Ceilings, Sizes, measured
from benchmarks.gpu.parts import Request, run_part
from benchmarks.gpu.record import Run
from benchmarks.gpu.timer import Program, in_turn
from tests.devices import CPU, DEVICE

__all__ = ["CPU", "TINY", "WallTimer", "bench", "ceilings", "run"]

TINY = Sizes(copied=1 << 12, product=32, seconds=0.0)


class WallTimer:
    """A `benchmarks.gpu.timer.Timer` of the CPU; what is captured is the call itself."""

    cache, warm_up = 1 << 6, 0

    def wait(self) -> None:
        if DEVICE.type == "cuda":
            torch.cuda.synchronize(DEVICE)

    def program(self, calls: Sequence[Callable[[], object]]) -> Program:
        def all_of_them() -> None:
            for call in calls:
                call()

        all_of_them()
        return Program(run=all_of_them, calls=len(calls), how="calls from Python")

    def capture(self, call: Callable[[], object], *, pool: Any = None) -> Callable[[], object]:
        return call

    def pool(self) -> None:
        pass

    def rounds(self, programs: Mapping[str, Program], *, seconds: float, warm: bool) -> dict[str, Sample]:
        def timed(program: Program) -> float:
            before = time.perf_counter()
            program.run()
            self.wait()
            return (time.perf_counter() - before) / program.calls

        return in_turn(programs, timed, seconds=seconds, fewest=2, most=2)

    def peak(self, call: Callable[[], object]) -> None:
        call()


def ceilings() -> Ceilings:
    return measured(CPU, WallTimer(), TINY)


def bench(seconds: float = 60.0, said: list[str] | None = None, path: Path | None = None, **others: Any) -> Bench:
    """One that prints into `said`."""
    settings: dict[str, Any] = {"device": CPU, "timer": WallTimer(), "measure": ceilings} | others
    say = (said if said is not None else []).append
    return Bench(run=Run(path, {"part": "a part"}), seconds=seconds, say=say, **settings)


def run(name: str, cases: Callable[[], list[Case]], path: Path, said: list[str], **request: Any) -> int:
    """As the command runs a part; how many failed."""
    device = request.pop("device", CPU)
    asked: dict[str, Any] = {"seconds": 600.0, "settings": {"seconds": 600.0}, "json": path, "ceilings": TINY} | request
    return run_part(name, cases, Request(**asked), device, WallTimer(), said.append)["failed"]
