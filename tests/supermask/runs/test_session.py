"""Runs that stop in every way and go on: they end with the same bytes of metrics, masks and ticket, the same scores."""

import errno
import json
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from supermask.runs import measured, session, stages
from supermask.runs.checkpoint import Checkpoints
from supermask.runs.folder import RunFolderError
from supermask.runs.interrupts import Interrupted
from supermask.runs.options import RecipeError
from supermask.runs.read import read_summary
from supermask.runs.session import VERSION, Done, Session
from supermask.training.loop import Loop
from supermask.training.parallel import Group
from supermask.training.training import Training
from tests.supermask.runs.small_runs import (
    BASE,
    CASES,
    Killed,
    Moments,
    a_save_every,
    last_state,
    left_by,
    placed,
    same,
    watched,
)


@pytest.mark.parametrize("case", CASES)
def test_killed_anywhere_and_resumed_it_ends_the_same(case: str, tmp_path: Path) -> None:
    recipe, draw = CASES[case], random.Random(case)
    with watched() as whole, a_save_every(3):
        result = placed(recipe, tmp_path / "whole", checkpoint_seconds=3).execute()
    expected = left_by(tmp_path / "whole")
    for number, kills in enumerate((1, 1, 2, 4)):
        folder = tmp_path / f"{number}"
        for kill in range(kills):
            # Moments of later kills are drawn near: what is left to do has fewer.
            moment = draw.randrange(1, whole.passed if kill == 0 else whole.passed // 4)
            with watched(moment), a_save_every(3), suppress(Killed):
                placed(recipe, folder, checkpoint_seconds=3, resume=kill > 0).execute()
        resumed = placed(recipe, folder, resume=True).execute()
        assert same(left_by(folder), expected), number
        assert resumed.cycles == result.cycles


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What BASE leaves when nothing stops it."""
    folder = tmp_path_factory.mktemp("base") / "whole"
    placed(BASE, folder).execute()
    return left_by(folder)


def nth(number: int, do: Callable[[], object], owner: Any, name: str, patch: pytest.MonkeyPatch) -> None:
    """`do` happens within the `number`-th call of `owner.name`."""
    function, calls = getattr(owner, name), iter(range(1, 10_000))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            do()
        return function(*args, **kwargs)

    patch.setattr(owner, name, call)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_training_waits_for_the_step_and_saves(
    number: signal.Signals, whole: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        nth(8, lambda: os.kill(os.getpid(), number), Loop, "take_step", patch)
        with pytest.raises(Interrupted) as stop:
            placed(BASE, folder).execute()
    assert stop.value.signal == number
    saved = folder / "checkpoints" / "00000001.pt"
    assert str(stop.value) == (
        f"interrupted by {number.name} at step 8 (epoch 2 of the run); saved to {saved}: go on with --resume"
    )
    placed(BASE, folder, resume=True).execute()
    assert same(left_by(folder), whole)


def test_a_signal_while_an_epoch_ends_is_heeded_after_it(whole: dict[str, Any], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        nth(2, lambda: os.kill(os.getpid(), signal.SIGTERM), Group, "check_masks", patch)
        with pytest.raises(Interrupted, match=r"at step 10 \(epoch 3 of the run\)"):
            placed(BASE, tmp_path / "run").execute()
    placed(BASE, tmp_path / "run", resume=True).execute()
    assert same(left_by(tmp_path / "run"), whole)


@pytest.mark.parametrize(("place", "owner"), [("right_of", measured), ("recalibrate", stages), ("save", stages)])
def test_a_signal_outside_training_ends_the_run_at_once(
    place: str, owner: Any, whole: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        nth(1, lambda: os.kill(os.getpid(), signal.SIGTERM), owner, place, patch)
        with pytest.raises(Interrupted, match="interrupted by SIGTERM: go on from the last checkpoint with --resume"):
            placed(BASE, tmp_path / "run").execute()
    placed(BASE, tmp_path / "run", resume=True).execute()
    assert same(left_by(tmp_path / "run"), whole)


def test_a_second_ctrl_c_ends_the_run_at_once(whole: dict[str, Any], tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        nth(3, twice, Loop, "take_step", patch)
        with pytest.raises(Interrupted) as stop:
            placed(BASE, tmp_path / "run").execute()
    assert stop.value.signal == signal.SIGINT
    assert not (tmp_path / "run" / "checkpoints").exists()
    placed(BASE, tmp_path / "run", resume=True).execute()
    assert same(left_by(tmp_path / "run"), whole)


def test_handlers_are_as_they_were_after_a_run(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    placed(BASE, tmp_path / "run").execute()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
    "cut short": lambda data: data[:-100],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("every", [False, True])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(
    damage: str, every: bool, whole: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with watched(150), a_save_every(3), pytest.raises(Killed):
        placed(BASE, folder, checkpoint_seconds=3).execute()
    paths = Checkpoints(folder / "checkpoints").paths()
    assert len(paths) == 2
    for path in paths if every else paths[-1:]:
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
        damaged = path.read_bytes()
    with watched() as passed:
        placed(BASE, folder, resume=True).execute()
    said = capsys.readouterr().err
    for path in paths if every else paths[-1:]:
        assert f"checkpoint {path} is damaged" in said
    assert (f"{folder}: no whole checkpoint to go on from, so the run is begun anew" in said) == every
    assert (passed.names.count("after Loop.take_step") == 20) == every
    assert paths[-1].with_suffix(".damaged").read_bytes() == damaged
    assert same(left_by(folder), whole)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within the block a file cannot grow beyond `size` bytes, as on a disk without room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_checkpoint_before_and_the_run_goes_on(
    whole: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with watched(100), a_save_every(3), pytest.raises(Killed):
        placed(BASE, folder, checkpoint_seconds=3).execute()
    *_, last = Checkpoints(folder / "checkpoints").paths()
    held = last.read_bytes()
    with largest_file(len(held) - 100), a_save_every(3), watched(30), pytest.raises(Killed):
        placed(BASE, folder, checkpoint_seconds=3, resume=True).execute()
    said = capsys.readouterr().err
    number = int(last.stem) + 1
    assert f"{number:08}.pt could not be written (File too large); {last} stands" in said
    assert last.read_bytes() == held
    assert sorted(path.suffix for path in (folder / "checkpoints").iterdir()) == [".pt", ".pt"]
    placed(BASE, folder, resume=True).execute()
    assert same(left_by(folder), whole)


def test_metrics_without_room_end_the_run_with_the_file_and_the_way_on(whole: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with watched(100), a_save_every(3), pytest.raises(Killed):
        placed(BASE, folder, checkpoint_seconds=3).execute()
    size = max((folder / name).stat().st_size for name in ("metrics.jsonl", "ranks.jsonl"))
    with largest_file(size + 10), pytest.raises(RunFolderError) as error:
        placed(BASE, folder, checkpoint_seconds=3, resume=True).execute()
    assert f"cannot write {folder}/" in str(error.value)
    assert str(error.value).endswith(".jsonl: File too large; make room or mend the disk, then go on with --resume")
    placed(BASE, folder, resume=True).execute()
    assert same(left_by(folder), whole)


def test_what_a_resumed_run_repeats_it_does_not_log_twice(tmp_path: Path) -> None:
    """The wall-clock times alone may have lines of what was done twice."""
    recipe = replace(BASE, stages=BASE.course[:1])
    with watched() as passed:
        placed(recipe, tmp_path / "whole").execute()
    last_step = len(passed.names) - passed.names[::-1].index("after Loop.take_step")
    with watched(last_step), pytest.raises(Killed):
        placed(recipe, tmp_path / "run").execute()
    placed(recipe, tmp_path / "run", resume=True).execute()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 4


def test_another_environment_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    with watched(100), a_save_every(3), pytest.raises(Killed):
        placed(BASE, folder, checkpoint_seconds=3).execute()
    config = json.loads((folder / "config.json").read_text())
    config["environment"]["threads"] = 99
    (folder / "config.json").write_text(json.dumps(config))
    placed(BASE, folder, resume=True).execute()
    assert f"{folder}: threads was 99, is " in (said := capsys.readouterr().err)
    assert "the run goes on, but not to the same bits" in said


def test_a_checkpoint_that_does_not_fit_leaves_the_files_alone(tmp_path: Path) -> None:
    folder = placed(BASE, tmp_path / "run").execute().folder
    state = last_state(folder)
    state["model"] = {"other.weight": torch.zeros(1)}
    state["lengths"] = dict.fromkeys(state["lengths"], 0)
    Checkpoints(folder / "checkpoints").save(state)
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(RecipeError, match="of another network"):
        placed(BASE, folder, resume=True).execute()
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_the_layout_of_a_checkpoint_is_that_of_its_version(tmp_path: Path) -> None:
    """Another layout has another version, so that no run is resumed from what it does not understand."""
    state = last_state(placed(BASE, tmp_path / "run").execute().folder)
    assert state["version"] == VERSION == 1
    assert set(state) == {
        "version", "lengths", "model", "loop", "optimiser", "ever", "cumulative",
        "stage", "stage_epoch", "lr", "lr_before", "trained", "results", "tickets",
    }  # fmt: skip
    assert set(state["loop"]) == {"step", "epoch", "losses", "right", "count"}
    del state["lr_before"]  # which came later, and can be told from the rest
    done = Done()
    done.load_state_dict(state)
    assert done.lr_before == done.lr == state["lr"]


def test_a_summary_goes_when_its_end_is_lost(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    placed(BASE, folder).execute()
    Checkpoints(folder / "checkpoints").paths()[-1].unlink()
    with monkeypatch.context() as patch:
        patch.setattr(stages, "save", lambda *_, **__: Moments(at=1)("save"))
        with pytest.raises(Killed):
            placed(BASE, folder, resume=True).execute()
    assert not (folder / "summary.json").exists()
    assert not read_summary(folder).finished
    placed(BASE, folder, resume=True).execute()
    assert same(left_by(folder), whole)


def test_a_run_that_ended_before_summaries_were_written_gets_one(whole: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    placed(BASE, folder).execute()
    (folder / "summary.json").unlink()
    placed(BASE, folder, resume=True).execute()
    assert same(left_by(folder), whole)


@pytest.mark.parametrize("moment", ["before", "within"])
def test_a_run_killed_between_its_last_checkpoint_and_its_summary_gets_one(
    moment: str, whole: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"

    def replaced(before: Path, after: Path) -> None:
        if after.name == "summary.json":
            raise Killed
        before.rename(after)

    with pytest.MonkeyPatch.context() as patch:
        if moment == "before":
            patch.setattr(session, "summarise", lambda _: Moments(at=1)("summarise"))
        else:
            patch.setattr(os, "replace", replaced)
        with pytest.raises(Killed):
            placed(BASE, folder).execute()
    assert not (folder / "summary.json").exists()
    assert read_summary(folder).finished
    placed(BASE, folder, resume=True).execute()
    assert same(left_by(folder), whole)


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A disk that forgets the first byte of the metrics."""

    def epochs(self, training: Training) -> int:
        return 0

    def run(self, session: Session) -> None:
        with (session.folder.path / "metrics.jsonl").open("r+b") as file:
            file.write(b"[")


def test_a_summary_that_cannot_be_made_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    result = placed(replace(BASE, stages=(*BASE.course, Damage())), folder).execute()
    assert result.tickets
    assert len(result.cycles) == 2
    said = f"{folder}/metrics.jsonl line 1 is damaged: not a JSON object: the run ended, without summary.json; mend"
    assert said in capsys.readouterr().err
    assert not (folder / "summary.json").exists()
    with (folder / "metrics.jsonl").open("r+b") as file:
        file.write(b"{")
    placed(replace(BASE, stages=(*BASE.course, Damage())), folder, resume=True).execute()
    assert read_summary(folder).finished
    assert (folder / "summary.json").exists()


def test_a_summary_without_room_ends_no_run(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, real = tmp_path / "run", os.replace

    def full(before: Path, after: Path) -> None:
        if after.name == "summary.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(before, after)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert placed(BASE, folder).execute().tickets
    assert f"the run ended, but cannot write {folder}/summary.json: No space left" in capsys.readouterr().err
    placed(BASE, folder, resume=True).execute()
    assert same(left_by(folder), whole)
