"""Tuning: neighbours, what is taken, what is refused, and every problem at a tiny size, interpreted."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks._timing import Sample
from benchmarks.gpu import tune
from benchmarks.gpu.convolutions import Convolution
from benchmarks.gpu.itself import launched
from benchmarks.gpu.problems import Problem, TuneSizes, problems
from benchmarks.gpu.timer import Program
from supermask.kernels.base.launch import launch
from supermask.kernels.base.sizes import INTERPRETED, Row, Sizes, tried
from tests.benchmarks.gpu.wall import WallTimer, bench, run

ROWS = (Row({"BLOCK": 1024, "num_warps": 4}),)
TABLE = Sizes("made_up", dict.fromkeys(("sm", "gfx", INTERPRETED), ROWS))


class Kernel:
    """Starts nothing."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *args, **meta: None


class Told(WallTimer):
    """Times are what the calls say."""

    def rounds(self, programs: Mapping[str, Program], *, seconds: float, warm: bool) -> Any:
        def said(program: Program) -> float:
            program.run()
            return SECONDS[-1]

        return {name: Sample(rounds=(said(program),) * 3) for name, program in programs.items()}


SECONDS: list[float] = []


def problem(seconds: Callable[[Mapping[str, int | bool]], float], result: Callable[[Any], Any], most: int) -> Problem:
    """A kernel that takes as long, and gives what, its sizes say; it launches blocks of `most` at most."""

    def make(device: torch.device, cache: int) -> list[Callable[[], Any]]:
        def call() -> Any:
            sizes = TABLE.of()
            launch(Kernel(), (1,), torch.ones(1), **{**sizes, "BLOCK": min(sizes["BLOCK"], most)})
            SECONDS.append(seconds(sizes))
            return result(sizes)

        return [call]

    return Problem(name="made up", table=TABLE, when={}, make=make)


def tuned(seconds: Any, result: Any = lambda sizes: torch.ones(3), most: int = 1 << 20) -> dict[str, Any]:
    return tune.tune(bench(timer=Told()), problem(seconds, result, most))


def test_neighbours_differ_in_one_size_and_stay_in_bounds() -> None:
    found = list(tune.neighbours({"BLOCK": 256, "num_warps": 16, "num_stages": 2}))
    assert found == [
        {"BLOCK": 512, "num_warps": 16, "num_stages": 2},
        {"BLOCK": 256, "num_warps": 8, "num_stages": 2},
        {"BLOCK": 256, "num_warps": 16, "num_stages": 1},
        {"BLOCK": 256, "num_warps": 16, "num_stages": 3},
    ]


def test_a_row_is_printed_as_it_is_written() -> None:
    text = tune.row_text({"BLOCK": 512, "num_warps": 2}, {"exact": True, "rows": 8})
    assert eval(text, {"Row": Row}) == Row({"BLOCK": 512, "num_warps": 2}, {"exact": True, "rows": 8})


def test_the_way_leads_from_the_table_to_what_is_fastest() -> None:
    found = tuned(lambda sizes: 1.0 + abs(sizes["BLOCK"] - 4096) / 4096 + abs(sizes["num_warps"] - 4))
    assert found["best"] == {"BLOCK": 4096, "num_warps": 4}
    assert found["table"] == {"BLOCK": 1024, "num_warps": 4}
    assert 'Row({"BLOCK": 4096, "num_warps": 4}, {})' in found["lines"][-1]


def test_what_is_hardly_faster_is_noise() -> None:
    found = tuned(lambda sizes: 1.0 if sizes["BLOCK"] == 1024 else 0.98)
    assert found["best"] == found["table"]
    assert found["lines"] == ["nothing is faster than {'BLOCK': 1024, 'num_warps': 4}"]


def test_a_further_turn_has_to_be_worth_it_too() -> None:
    """Of the table's time 2048 takes .5, 4096 a hundredth less than 2048: the way ends at 2048."""
    found = tuned(lambda sizes: {2048: 0.5, 4096: 0.495}.get(sizes["BLOCK"], 1.0) + abs(sizes["num_warps"] - 4))
    assert found["best"] == {"BLOCK": 2048, "num_warps": 4}
    assert len(found["turns"]) == 3  # to 2048, no further, and once more beside the table's


def test_what_the_device_has_no_room_for_is_no_failure() -> None:
    def result(sizes: Mapping[str, int]) -> Any:
        if sizes["num_warps"] == 8:
            raise RuntimeError("out of resource: shared memory")
        return torch.ones(3)

    found = tuned(lambda sizes: 1.0, result)
    assert any("out of resource: shared memory" in one for one in found["turns"][0]["not here"])
    assert not found["turns"][0]["failed"]


def test_what_launches_the_same_is_not_tried() -> None:
    found = tuned(lambda sizes: 1.0, most=512)
    tried = [str({"BLOCK": 1024, "num_warps": warps}) for warps in (2, 8)]
    assert list(found["turns"][0]["rivals"]) == [tune.TABLE, *tried]


def test_a_winner_that_does_not_win_again_is_not_printed() -> None:
    given = iter([1.0, *[0.5] * 7])

    def seconds(sizes: Mapping[str, int]) -> float:
        return 1.0 if sizes["BLOCK"] == 1024 else next(given, 2.0)

    found = tuned(seconds)
    assert found["best"] == found["table"]
    assert found["lines"] == ["nothing is faster than {'BLOCK': 1024, 'num_warps': 4}"]
    assert len(found["turns"]) > 1


def test_what_there_was_no_time_for_is_said() -> None:
    at_hand = bench(timer=Told())
    at_hand.until = 0.0
    found = tune.tune(at_hand, problem(lambda sizes: 1.0, lambda sizes: torch.ones(3), 1 << 20))
    assert found["left out"] == "budget: 4 variants not tried (--seconds, --match)"


@pytest.mark.parametrize("backward", [False, True])
def test_sizes_that_are_tried_reach_the_launch(backward: bool, triton_device: torch.device) -> None:
    sizes = TuneSizes(widths=(128,), rows=(64,), convolutions=(), scores=())
    found = list(problems(sizes))[backward]
    (call, *_) = found.make(triton_device, 1)
    for block in (16, 32):
        with tried("masked_mm", {"BLOCK_M": block, "BLOCK_N": 64, "num_warps": 4, "num_stages": 1}):
            (*_, meta), *_ = launched(call)
        assert meta["BLOCK_M"] == block


def test_another_result_is_a_failure() -> None:
    found = tuned(lambda sizes: 1.0, lambda sizes: torch.full((3,), float(sizes["BLOCK"] != 2048)))
    (failed,) = found["turns"][0]["failed"].values()
    assert "made up gives another result with {'BLOCK': 2048, 'num_warps': 4}" in failed["error"]


def test_every_problem_can_be_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, triton_device: torch.device
) -> None:
    sizes = TuneSizes(
        widths=(128,),
        rows=(1,),
        convolutions=(Convolution(channels=4, rows=4, kernel=3, stride=1, size=4),),
        images=1,
        scores=(("small", ((4, 3, 3, 3),)),),
        weight=(2, 130),
    )
    monkeypatch.setattr(tune, "TURNS", 1)
    said: list[str] = []
    assert run("tune", lambda: tune.cases(sizes), tmp_path / "t.json", said, device=triton_device) == 0, said
