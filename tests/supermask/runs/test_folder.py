"""Run folders: what they refuse, and that nothing is overwritten."""

import copy
from pathlib import Path

import pytest

from supermask.later import settings
from supermask.methods.cycles import Cycle
from supermask.runs.folder import RunFolder, RunFolderError
from supermask.runs.identity import differences, newest, read_config
from supermask.runs.read import read_metrics
from supermask.runs.records import EdgeRanks, Ended, Evaluation, SampledEdges


def reached(accuracy: float) -> Evaluation:
    return Evaluation(cycle=1, accuracy=accuracy)


def test_events_come_back_in_order(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b")
    folder.log(reached(0.5))
    folder.log(Ended())
    assert read_metrics(folder.path) == [{"event": "evaluate", "cycle": 1, "accuracy": 0.5}, {"event": "end"}]


def test_a_folder_that_holds_a_run_is_refused_and_unchanged(tmp_path: Path) -> None:
    RunFolder(tmp_path).log(reached(1.0))
    with pytest.raises(RunFolderError, match=f"{tmp_path} already holds a run"):
        RunFolder(tmp_path)
    assert len(read_metrics(tmp_path)) == 1


def test_next_free_skips_what_exists(tmp_path: Path) -> None:
    assert RunFolder.next_free(tmp_path, "x").path == tmp_path / "x-1"
    assert RunFolder.next_free(tmp_path, "x").path == tmp_path / "x-2"


@pytest.mark.parametrize("inside", ["file", "file/below"])
def test_an_unwritable_folder_is_named_and_leaves_nothing(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match=str(tmp_path / inside)):
        RunFolder(tmp_path / inside)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_system_that_refuses_is_named() -> None:
    with pytest.raises(RunFolderError, match="cannot write run folder /proc/nothing"):
        RunFolder(Path("/proc/nothing"))


def test_one_process_at_a_time_has_a_folder(tmp_path: Path) -> None:
    first = RunFolder(tmp_path)
    with pytest.raises(RunFolderError, match=f"{tmp_path} is being written by another process"):
        RunFolder(tmp_path, resume=True)
    first.log(reached(1.0))
    first.close()
    second = RunFolder(tmp_path, resume=True)
    second.log(reached(2.0))
    assert [event["accuracy"] for event in read_metrics(tmp_path)] == [1.0, 2.0]


def test_a_silent_folder_writes_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", silent=True)
    folder.log(Ended())
    folder.log_ranks(Ended())
    folder.log_time(Ended())
    folder.write("masks/x", b"1")
    folder.write_config({})
    folder.rewind(folder.lengths())
    folder.close()
    assert not list(tmp_path.iterdir())


def test_rewinding_drops_what_came_after(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log(SampledEdges(layers=["ä"], edges=[]))
    folder.log_ranks(EdgeRanks(cycle=1, epoch=0, ranks=[0.5], selected=[1]))
    lengths = folder.lengths()
    before = {name: (tmp_path / name).read_bytes() for name in lengths}
    assert lengths == {name: len(data) for name, data in before.items()}
    for _ in range(3):
        folder.log(reached(0.25))
        folder.log_ranks(EdgeRanks(cycle=1, epoch=1, ranks=[0.25], selected=[0]))
    folder.rewind(lengths)
    assert {name: (tmp_path / name).read_bytes() for name in lengths} == before
    folder.log(Ended())
    assert [event["event"] for event in read_metrics(tmp_path)] == ["edges", "end"]
    with pytest.raises(RunFolderError, match=r"ranks\.jsonl has \d+ bytes where its checkpoint saw 999"):
        folder.rewind({"ranks.jsonl": 999})
    folder.rewind({})
    assert read_metrics(tmp_path) == []


def test_numbers_that_json_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        RunFolder(tmp_path).log(reached(float("nan")))


def test_the_mirror_gets_every_event_of_the_metrics(tmp_path: Path) -> None:
    folder, seen = RunFolder(tmp_path), []
    folder.mirror = seen.append
    folder.log(reached(1.0))
    folder.log_ranks(SampledEdges(layers=[], edges=[]))
    assert seen == [{"event": "evaluate", "cycle": 1, "accuracy": 1.0}]


def test_differences_name_each_setting() -> None:
    before = {"name": "a", "training": {"lr": 0.1, "epochs": 3}, "stages": [{"cycle": {"remaining": 0.5}}], "empty": {}}
    assert differences(before, before, ()) == []
    changed = {"name": "a", "training": {"lr": 0.2}, "stages": [{"cycle": {"remaining": 0.5}}, 1], "empty": {"x": 1.0}}
    assert differences(before, changed, ()) == [
        "empty was {}, is None",
        "empty.x was None, is 1.0",
        "stages.1 was None, is 1",
        "training.epochs was 3, is None",
        "training.lr was 0.1, is 0.2",
    ]
    run = {"run": {"seed": 0, "quiet": True}}
    assert differences(run, {"run": {"seed": 0, "quiet": False}}, ["run.quiet"]) == []
    assert differences(run, {"run": {"seed": 1, "quiet": True}}, ["run.quiet"]) == ["run.seed was 0, is 1"]


def test_the_newest_folder_of_a_configuration(tmp_path: Path) -> None:
    assert newest(tmp_path, "x", {"a": 1}, ()) is None
    for number, config in ((1, {"a": 1}), (2, {"a": 2}), (9, {"a": 1}), (10, {"a": 1}), (11, {"a": 2}), (12, None)):
        folder = RunFolder(tmp_path / f"x-{number}")
        if config:
            folder.write_config(config)
    RunFolder(tmp_path / "x-old-20").write_config({"a": 1})
    assert newest(tmp_path, "x", {"a": 1}, ()) == tmp_path / "x-10"
    assert newest(tmp_path, "x", {"a": 3}, ()) is None


def test_a_folder_whose_cycles_have_the_fields_of_older_releases_is_the_same_run(tmp_path: Path) -> None:
    cycles = Cycle(remaining=0.5), Cycle(remaining=0.4, scores="initial", unselected="zero")
    stages = [{"stage": "Search", "cycle": settings(cycle)} for cycle in cycles]
    older = copy.deepcopy(stages)
    older[1]["cycle"]["scores"] = "initial_masked"
    for stage in older:
        del stage["cycle"]["unselected"]
    RunFolder(tmp_path / "x-1").write_config({"stages": [*older, {"stage": "Train"}]})
    config = {"stages": [*stages, {"stage": "Train"}]}
    assert newest(tmp_path, "x", config, ()) == tmp_path / "x-1"
    assert read_config(tmp_path / "x-1") == config


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunFolderError, match=r"holds thesis.tex and is no run"):
        RunFolder(tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_who_waited_for_a_folder_sees_what_was_written_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RunFolder(tmp_path)

    def meanwhile(_seconds: float) -> None:
        first.log(reached(1.0))
        first.close()

    monkeypatch.setattr("supermask.runs.folder.time.sleep", meanwhile)
    second = RunFolder(tmp_path, resume=True, patience=60)
    assert second.lengths()["metrics.jsonl"] == (tmp_path / "metrics.jsonl").stat().st_size > 0


def test_what_a_killed_run_left_unfinished_goes(tmp_path: Path) -> None:
    RunFolder(tmp_path).close()
    (tmp_path / "checkpoints").mkdir()
    left = tmp_path / "checkpoints" / ".00000002.pt.unfinished", tmp_path / ".ticket.safetensors.ab.unfinished"
    for path in left:
        path.write_bytes(b"half")
    RunFolder(tmp_path, resume=True).close()
    assert not any(path.exists() for path in left)


def test_a_file_among_run_folders_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "name-2").write_text("a file")
    assert newest(tmp_path, "name", {"name": "name"}, ()) is None


@pytest.mark.usefixtures("unsynced_folders")
def test_a_file_that_a_power_cut_may_lose_is_not_called_unwritten(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError) as caught:
        RunFolder(tmp_path).write("masks/x", b"1")
    assert str(caught.value).startswith(f"{tmp_path}/masks/x is written, but a power cut may lose it")
    assert str(caught.value).endswith("; mend the disk, then go on with --resume")
    assert (tmp_path / "masks/x").read_bytes() == b"1"


def test_a_folder_in_which_nothing_began_is_taken_away_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b")
    folder.rewind({})
    folder.abandon()
    assert not list(tmp_path.iterdir())
    given = tmp_path / "given"
    given.mkdir()
    RunFolder(given).abandon()
    assert not list(given.iterdir())


def test_a_folder_with_a_run_stays_when_it_is_let_go_of(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_config({})
    folder.abandon()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "metrics.jsonl"}
    again = RunFolder(tmp_path / "run", resume=True)
    (tmp_path / "run" / "config.json").unlink()
    again.abandon()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.jsonl"]


def test_beside_other_things_a_parent_stays(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one")
    (tmp_path / "runs" / "other").mkdir()
    folder.abandon()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_as_it_is_made_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(RunFolder, "_lock", fail)
    with pytest.raises((RunFolderError, KeyboardInterrupt)):
        RunFolder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
