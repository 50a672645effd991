"""A part goes on after what fails, says what it had no time for, and keeps what it had when it is killed."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks._timing import Sample
from benchmarks.gpu.bench import Bench, Case, NotHere, Rival
from benchmarks.gpu.floors import Ceilings, Work
from benchmarks.gpu.record import FORMAT, RecordError, Run, last_counts, note_end, note_skipped
from benchmarks.gpu.timer import Program, first_line, in_turn
from tests.benchmarks.gpu.wall import WallTimer, bench, run


def _fails(_: Bench) -> dict[str, Any]:
    raise KeyError("a kernel\nand more")


def test_a_case_that_fails_is_recorded_and_the_next_one_runs(tmp_path: Path) -> None:
    path, said = tmp_path / "gpu.json", list[str]()
    cases = [Case(name="bad", run=_fails), Case(name="good", run=lambda _: {"value": 7, "lines": ["seven"]})]
    assert run("a part", lambda: cases, path, said) == 1
    (found,) = json.loads(path.read_text())["runs"]
    bad, good = found["cases"]
    assert bad["state"] == "failed"
    assert bad["error"] == r"KeyError: 'a kernel\nand more'"
    assert "in _fails" in bad["traceback"]
    assert (good["state"], good["value"]) == ("measured", 7)
    assert found["counts"] == {"measured": 1, "failed": 1, "not run": 0}
    assert "lines" not in good
    assert "  FAILED: KeyError" in "\n".join(said)
    assert "  seven" in said


def test_cases_that_cannot_be_listed_fail_the_part(tmp_path: Path) -> None:
    assert run("a part", lambda: 1 // 0, tmp_path / "gpu.json", []) == 1
    (found,) = json.loads((tmp_path / "gpu.json").read_text())["runs"]
    assert found["error"].startswith("ZeroDivisionError")


def test_what_did_not_fit_is_said() -> None:
    said: list[str] = []
    at_hand = bench(seconds=0.0, said=said)
    at_hand.run_all([Case(name="late", run=lambda _: {})])
    (case,) = at_hand.run.cases
    assert case["state"] == "not run"
    assert case["why"].startswith("budget: the 0 s of this part")
    assert "not run: budget" in said[-1]
    at_hand = bench(said=said)
    at_hand.run_all([Case(name="in part", run=lambda _: {"left out": "budget: 2 of 7 inputs checked"})])
    assert at_hand.counts == {"measured": 1, "failed": 0, "not run": 1}
    assert "not run: budget: 2 of 7 inputs checked" in said[-1]


def test_cases_are_chosen_by_name() -> None:
    at_hand = bench(match="one")
    at_hand.run_all([Case(name=name, run=lambda _: {}) for name in ("one", "two", "another one")])
    assert [case["case"] for case in at_hand.run.cases] == ["one", "another one"]


def test_a_lost_device_ends_a_part() -> None:
    class Lost(WallTimer):
        def wait(self) -> None:
            raise RuntimeError("an illegal memory access was encountered")

    at_hand = bench(timer=Lost())
    at_hand.run_all([Case(name="bad", run=_fails), Case(name="after", run=lambda _: {})])
    assert [case["state"] for case in at_hand.run.cases] == ["failed", "not run"]
    assert at_hand.run.cases[1]["why"] == "the device failed in 'bad'"


def _clock(seconds: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch) -> None:
    samples = {name: Sample(rounds=tuple(rounds)) for name, rounds in seconds.items()}
    monkeypatch.setattr(
        WallTimer, "rounds", lambda self, programs, seconds, warm: {name: samples[name] for name in programs}
    )


def _ceilings() -> Ceilings:
    """1 byte in 1 s, 4 bytes in 1 s from the cache, 2 operations in 1 s."""
    rates = {"bfloat16": Sample(rounds=(0.5,)), "float32": Sample(rounds=(8.0,))}
    return Ceilings(copy=Sample(rounds=(1.0,)), cached=Sample(rounds=(0.25,)), products=rates, cache=100)


def test_rivals_stand_beside_floors_and_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    _clock({"ours": [8.0, 30.0], "theirs": [4.0, 10.0]}, monkeypatch)
    monkeypatch.setattr("tests.benchmarks.gpu.wall.ceilings", _ceilings)
    at_hand = bench(measure=_ceilings)

    def not_here() -> Rival:
        raise NotHere("not installed")

    rivals = {
        "ours": Rival(calls=[lambda: None], work=Work(bytes=4, operations=4)),
        "theirs": lambda: Rival(program=Program(run=lambda: None, calls=1, how="a graph's replays", why="why not")),
        "absent": not_here,
        "broken": partial(_fails, at_hand),
    }
    found = at_hand.compare(rivals, base="theirs", warm=False, against=[("ours", "theirs"), ("absent", "ours")], more=1)
    ours, theirs = found["rivals"]["ours"], found["rivals"]["theirs"]
    assert ours["floor"] == {"memory": 4.0, "arithmetic": 2.0, "seconds": 4.0}
    assert (ours["floor by"], ours["over floor"], ours["over base"]["median"]) == ("memory", 19 / 4, 2.5)
    assert "floor" not in theirs
    assert theirs["not captured"] == "why not"
    assert found["failed"]["broken"]["error"].startswith("KeyError")
    assert at_hand.failures == 1
    assert found["not here"] == ["absent: not installed"]
    assert [one["ours"] for one in found["against"]] == ["ours"]
    told = "\n".join(found["lines"])
    assert "ours is slower than theirs: 2.500 of its time [2.200, 2.800]" in told
    assert "4.75 x its floor of" in told
    assert found["more"] == 1
    # Twice the bytes fit the cache, where reading takes a quarter of the time; float32 has a rate of its own.
    warm = _ceilings().floor(Work(bytes=50, operations=1, dtype=torch.float32), warm=True)
    assert (warm.memory, warm.arithmetic, warm.by) == (12.5, 8.0, "memory")
    assert _ceilings().floor(Work(bytes=51), warm=True).memory == 51


def test_rounds_fit_the_time_between_bounds() -> None:
    programs = {name: Program(run=lambda: None, calls=1, how="") for name in "ab"}
    for seconds, rounds in ((0.0, 3), (60.0, 7)):
        found = in_turn(programs, lambda _: 1.0, seconds=seconds, fewest=3, most=7)
        assert [len(sample.rounds) for sample in found.values()] == [rounds, rounds]


def test_an_error_is_told_with_what_it_came_of() -> None:
    def both() -> None:
        try:
            raise ValueError("the first\nline")
        except ValueError:
            raise RuntimeError("capture failed")  # noqa: B904 - as torch's context managers do

    with pytest.raises(RuntimeError) as caught:
        both()
    assert first_line(caught.value) == "RuntimeError: capture failed; after ValueError: the first"
    assert first_line(KeyError()) == "KeyError: (nothing)"


def test_a_file_is_whole_after_every_case(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    Run(path, {"part": "first"}).note(seconds=1.0)
    second = Run(path, {"part": "second"})
    second.begin("a case")
    first, found = json.loads(path.read_text())["runs"]
    assert (first["part"], first["seconds"]) == ("first", 1.0)
    assert found["cases"] == [{"case": "a case", "state": "begun"}]
    note_end(path, "second", "killed after 9 s")  # as by whoever started its process
    record = json.loads(path.read_text())
    assert record["runs"][-1]["ended"] == "killed after 9 s"
    assert record["runs"][-1]["cases"][0]["state"] == "begun"
    note_end(path, "third", "exit status -11")  # before it wrote anything
    assert json.loads(path.read_text())["runs"][-1] == {"part": "third", "ended": "exit status -11", "cases": []}


def test_a_file_has_what_json_has(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    run_ = Run(path, {"part": "first", "json": path})
    run_.note(over=[float("inf"), float("nan"), 1.5], counts={"measured": 3})
    (found,) = json.loads(path.read_text(), parse_constant=pytest.fail)["runs"]
    assert (found["over"], found["json"]) == (["inf", "nan", 1.5], str(path))
    assert last_counts(path, "first") == {"measured": 3}
    assert last_counts(path, "second") == {}
    with pytest.raises(TypeError, match="Tensor is not JSON serializable"):
        run_.note(tensor=torch.ones(2))


@pytest.mark.parametrize("text", ["{", "[]", '{"title": "another report"}'])
def test_a_file_of_something_else_is_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(text)
    for write in (lambda: Run(path, {}), lambda: note_skipped(path, "why"), lambda: note_end(path, "a", "b")):
        with pytest.raises(RecordError, match=r"gpu\.json .*name another file, or move this one away"):
            write()
    assert path.read_text() == text


def test_what_did_not_run_is_no_reason_to_touch_a_record(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    note_skipped(path, "no device")
    assert json.loads(path.read_text()) == {"format": FORMAT, "skipped": ["no device"], "runs": []}
    before = path.stat()
    note_skipped(path, "no device, again")
    assert path.stat() == before
