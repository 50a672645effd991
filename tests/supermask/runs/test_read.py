"""Run folders are read as they were written, as far as they came; damage is named."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from supermask.runs.read import finished, mean_and_error, read_run, read_summary
from supermask.runs.records import RunReadError
from tests.supermask.runs.run_folders import HALVED, edit_config, write_ep, write_lines, write_run


def test_a_run_comes_back_whole(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", seed=7, space="survivors"))
    assert (run.name, run.seed, run.finished, run.dense) == ("digits_soft_iep", 7, True, False)
    assert [cycle["remaining"] for cycle in run.searches] == list(HALVED)
    assert [(epoch.cycle, epoch.epoch) for epoch in run.epochs] == [(1 + i // 4, 1 + i) for i in range(12)]
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    written = [event for event in events if event["event"] == "cycle"][1]
    record = run.cycles[1]
    assert (record.cycle, record.kept, record.dying) == (2, written["kept"], written["dying"])
    assert record.apparent < record.dying
    assert record.dead == sum(written["dead_units"].values())
    scores = record.layers["fc2"].scores
    assert scores is not None
    assert list(scores.counts) == written["layers"]["fc2"]["scores"]["counts"]
    evaluated = [event for event in events if event["event"] == "evaluate"][1]
    assert (record.accuracy, record.recalibrated) == (evaluated["accuracy"], evaluated["recalibrated"])
    assert run.seconds == pytest.approx(6.0)
    assert run.data_wait == pytest.approx(0.1)
    assert {number: path.name for number, path in run.masks.items()} == {
        number: f"cycle-{number}.safetensors" for number in (1, 2, 3)
    }


def test_cycles_have_the_fields_of_this_release(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    file = path / "config.json"
    file.write_text(file.read_text().replace('"inherit"', '"inherit_masked"'))
    first, *later = read_run(path).searches
    assert (first["scores"], first["unselected"]) == ("initial", "keep")
    assert [(cycle["scores"], cycle["unselected"]) for cycle in later] == [("inherit", "zero")] * 2


def test_ranks_come_back(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "ranks.jsonl").read_text().splitlines()]
    assert run.ranks is not None
    assert run.ranks.layers == ("fc1", "fc2", "fc3")
    assert run.ranks.epochs == tuple(range(13))
    assert run.ranks.cycles == (1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
    assert run.ranks.edges[5] == tuple(lines[0]["edges"][5])
    assert np.array_equal(run.ranks.ranks[3], lines[4]["ranks"])
    assert np.array_equal(run.ranks.selected[3], lines[4]["selected"])


def test_a_dense_run(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", name="digits_dense", dense=True))
    assert run.dense
    assert run.ranks is None
    assert run.cycles[0].layers == {}
    assert (run.cycles[0].remaining, run.cycles[0].recalibrated) == (1.0, None)


def test_what_a_run_did_not_write_is_absent(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", bare=True))
    assert (run.ranks, run.times, run.masks) == (None, (), {})
    assert run.cycles[0].layers == {}
    assert math.isnan(run.data_wait)


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    for file in ("metrics.jsonl", "ranks.jsonl", "times.jsonl"):
        (path / file).unlink()
    run = read_run(path)
    assert (run.epochs, run.cycles, run.ranks, run.finished) == ((), (), None, False)


@pytest.mark.parametrize("file", ["metrics.jsonl", "ranks.jsonl", "times.jsonl"])
def test_a_run_killed_at_any_byte_is_read_as_far_as_it_came(tmp_path: Path, file: str) -> None:
    path = write_run(tmp_path / "run", epochs=2, rates=[0.5])
    whole = (path / file).read_bytes()
    before = read_run(path)
    for length in range(0, len(whole), len(whole) // 40):
        (path / file).write_bytes(whole[:length])
        run = read_run(path)
        lines = whole[:length].count(b"\n")
        assert run.epochs == before.epochs[: len(run.epochs)]
        if file == "metrics.jsonl":
            assert len(run.epochs) >= min(lines, 2)
            assert not run.finished


@pytest.mark.parametrize("file", ["metrics.jsonl", "ranks.jsonl"])
@pytest.mark.parametrize("damage", [b"{", b"", b"\xff\xfe", b"3", b"[]", b'{"event": "epoch"'])
def test_a_line_damaged_elsewhere_is_refused_with_its_number(tmp_path: Path, file: str, damage: bytes) -> None:
    path = write_run(tmp_path / "run")
    lines = (path / file).read_bytes().split(b"\n")
    lines[2] = damage
    (path / file).write_bytes(b"\n".join(lines))
    with pytest.raises(RunReadError, match=f"{file} line 3 is damaged"):
        read_run(path)


def test_times_may_be_torn_anywhere_and_the_last_of_an_epoch_counts(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", rates=[0.5], epochs=2)
    file = path / "times.jsonl"
    again = {"event": "epoch", "cycle": 1, "epoch": 2, "step": 62, "seconds": 9.5, "data_wait": 0.0}
    file.write_text(file.read_text() + '{"event": "ep' + json.dumps(again) + "\n" + json.dumps(again) + "\n")
    assert read_run(path).seconds == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("epoch", {"loss": "low"}, "line 1 is damaged: loss is 'low'"),
        ("epoch", {"epoch": True}, "line 1 is damaged: epoch is True"),
        ("cycle", {"kept": None}, "line 5 is damaged: kept is None"),
        ("cycle", {"layers": [1]}, "line 5 is damaged: layers is"),
        ("cycle", {"layers": {"fc1": {"edges": 3}}}, "line 5 layer 'fc1' has no kept"),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path: Path, kind: str, change: dict[str, object], message: str) -> None:
    path = write_run(tmp_path / "run")
    events = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    next(event for event in events if event["event"] == kind).update(change)
    write_lines(path / "metrics.jsonl", events)
    with pytest.raises(RunReadError, match=message):
        read_run(path)


@pytest.mark.parametrize(
    "change", [{"ranks": [0.5]}, {"selected": [1]}, {"cycle": None}, {"ranks": 3}, {"ranks": [[1]] * 200}]
)
def test_damaged_ranks_are_named(tmp_path: Path, change: dict[str, object]) -> None:
    path = write_run(tmp_path / "run")
    events = [json.loads(line) for line in (path / "ranks.jsonl").read_text().splitlines()]
    events[4] |= change
    write_lines(path / "ranks.jsonl", events)
    with pytest.raises(RunReadError, match=r"ranks.jsonl line 5 is damaged"):
        read_run(path)


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunReadError, match="nothing is not a run folder: there is no such folder"):
        read_run(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunReadError, match="file is not a run folder"):
        read_run(tmp_path / "file")
    write_ep(tmp_path / "grid")
    with pytest.raises(RunReadError, match=r"no config.json, but 3 folders in it have one: name those, .*grid/\*$"):
        read_run(tmp_path / "grid")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"recipe": {"name": 3, "run": {"seed": 0}, "stages": []}}', '{"recipe": {"name": "x"}}']
)
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = write_run(tmp_path / "run")
    (path / "config.json").write_text(text)
    with pytest.raises(RunReadError, match=r"config.json is not a run's configuration"):
        read_run(path)
    write_run(tmp_path / "b")
    for stage in ({}, {"stage": 3}, "Search", {"stage": "Search", "cycle": 3}, {"cycle": HALVED}):
        edit_config(tmp_path / "b", stages=[stage])
        with pytest.raises(RunReadError, match=r"config.json is not a run's configuration"):
            read_run(tmp_path / "b")


def test_a_stage_with_a_cycle_searches_whatever_its_name(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    _, *searches = read_run(path).searches
    edit_config(path, stages=[{"stage": "Search"}, *({"stage": "Mine", "cycle": cycle} for cycle in searches)])
    run = read_run(path)
    assert list(run.searches) == searches
    assert not run.dense


def test_mean_and_error() -> None:
    assert mean_and_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, math.sqrt(5 / 3) / 2))
    mean, error = mean_and_error([3.0])
    assert mean == 3.0
    assert math.isnan(error)


def test_a_run_is_finished_by_its_last_line(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    assert finished(path)
    metrics = path / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(whole.replace(b'{"event": "end"}', b'{ "event" : "end" }'))
    assert finished(path)
    for other in (whole + b'{"event": "epoch"}\n', whole[:-5], b"", b"[]\n", b"\xff"):
        metrics.write_bytes(other)
        assert not finished(path)
    metrics.unlink()
    assert not finished(path)


def test_without_a_summary_a_run_is_summarised_from_its_metrics(tmp_path: Path) -> None:
    for ended in (True, False):
        path = write_run(tmp_path / f"{ended}", seed=3, finished=ended)
        short, whole = read_summary(path), read_run(path)
        assert (short.name, short.seed, short.finished) == ("digits_soft_iep", 3, ended)
        assert [(c.kept, c.accuracy, c.recalibrated, c.dying) for c in short.cycles] == [
            (c.kept, c.accuracy, c.recalibrated, c.dying) for c in whole.cycles
        ]
        assert not any(cycle.layers for cycle in short.cycles)
        assert short.settings["training"] == whole.config["training"]
        assert short.seconds == whole.seconds


@pytest.mark.parametrize(("text", "says"), [("{", "not a JSON object"), ("{}", "has no name")])
def test_a_damaged_summary_is_named(text: str, says: str, tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    (path / "summary.json").write_text(text)
    with pytest.raises(RunReadError, match=f"summary.json .*{says}"):
        read_summary(path)


def test_a_run_is_shown_in_a_line(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", seed=3))
    counted = f"cycles={len(run.cycles)}, epochs={len(run.epochs)}, finished=True"
    assert repr(run) == f"RunRecord({str(tmp_path / 'run')!r}, name='digits_soft_iep', seed=3, {counted})"
