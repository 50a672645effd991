"""Trackers whose backend is away: one warning, a run that goes on, and all told in the end."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supermask.runs.grid import Job, run_grid
from supermask.runs.hook import Begun, HookError
from supermask.runs.options import RunOptions, RunResult
from supermask.runs.read import read_metrics
from supermask.runs.recipe import Recipe
from supermask.runs.trackers import TensorBoard
from supermask.runs.trackers.telling import Tracker
from tests.supermask.runs.small_runs import BASE, left_by, placed, same
from tests.supermask.runs.some_hooks import Diary


class Backend(Tracker):
    """Has what it was told in a file; calls fail whose numbers, from 1, are `away`.

    Args:
        folder: where it is.
        away: numbers of calls, or names of places.
    """

    def __init__(self, folder: Path, away: tuple[int | str, ...] = ()) -> None:
        super().__init__()
        self.file, self.away, self.calls = folder / "backend.json", away, 0

    @property
    def has(self) -> list[Any]:
        return list(json.loads(self.file.read_bytes())) if self.file.exists() else []

    def add(self, what: Any, place: str) -> None:
        self.calls += 1
        if self.calls in self.away or place in self.away:
            raise ConnectionError("gone")
        self.file.write_text(json.dumps([*self.has, what]))

    def begin(self, run: Begun) -> None:
        if "begin" in self.away:
            raise ConnectionError("gone")
        self.go_on(run, told=sum(what != "end" for what in self.has))

    def tell(self, found: Mapping[str, float], *, step: int, number: int) -> None:
        self.add(number, "tell")

    def end(self, result: RunResult) -> None:
        super().end(result)
        self.add("end", "end")

    def close(self) -> None:
        if "close" in self.away:
            raise ConnectionError("gone")


def whole(folder: Path) -> list[Any]:
    """What a backend has of a run that told it all once."""
    return [*range(1, len(read_metrics(folder)) + 1), "end"]


AFTER = (
    "the run goes on: what is left is told at the next event, and what is left at its end by --resume",
    "the run stands, and --resume tells what is left",
    "what was told stands",
)


@pytest.mark.parametrize(
    ("away", "warnings"),
    [
        ((1,), [f"hook Backend.log failed after 5 steps: ConnectionError: gone; {AFTER[0]}"]),
        ((2, 3, 4), [f"hook Backend.log failed after 10 steps: ConnectionError: gone; {AFTER[0]}"]),
        (
            (2, 5),
            [f"hook Backend.log failed after {step} steps: ConnectionError: gone; {AFTER[0]}" for step in (10, 10)],
        ),
        (("close",), [f"hook Backend.close failed after 20 steps: ConnectionError: gone; {AFTER[2]}"]),
    ],
)
def test_what_failed_is_told_with_the_next_event(
    away: tuple[int | str, ...], warnings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Backend(tmp_path, away)
    placed(replace(BASE, hooks=(backend,)), tmp_path / "run").execute()
    assert backend.has == whole(tmp_path / "run")
    assert capsys.readouterr().err.splitlines() == warnings
    placed(BASE, tmp_path / "plain").execute()
    assert same(left_by(tmp_path / "run"), left_by(tmp_path / "plain"))


@pytest.mark.parametrize(
    ("away", "has", "warning"),
    [
        (("tell", "close"), 0, f"hook Backend.log failed after 5 steps: ConnectionError: gone; {AFTER[0]}"),
        (("end",), 10, f"hook Backend.end failed after 20 steps: ConnectionError: gone; {AFTER[1]}"),
    ],
)
def test_what_was_not_told_at_the_end_a_resumed_run_tells(
    away: tuple[str, ...], has: int, warning: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    placed(replace(BASE, hooks=(Backend(tmp_path, away),)), folder).execute()
    assert capsys.readouterr().err.splitlines() == [warning]
    assert len(Backend(tmp_path).has) == has
    before = left_by(folder)

    placed(replace(BASE, hooks=(Backend(tmp_path, ("begin",)),)), folder, resume=True).execute()
    assert capsys.readouterr().err.splitlines() == [
        f"hook Backend.begin failed after 20 steps: ConnectionError: gone; {AFTER[1]}"
    ]
    assert json.loads((folder / "untold.json").read_bytes()) == ["Backend"]

    placed(replace(BASE, hooks=(Backend(tmp_path),)), folder, resume=True).execute()
    assert Backend(tmp_path).has == whole(folder)
    assert capsys.readouterr().err == ""
    assert not (folder / "untold.json").exists()
    assert same(left_by(folder), before)

    diary = Diary()
    placed(replace(BASE, hooks=(diary, Backend(tmp_path))), folder, resume=True).execute()
    assert diary.calls == []
    assert Backend(tmp_path).has == whole(folder)


def test_a_backend_that_is_away_at_the_begin_ends_the_run(tmp_path: Path) -> None:
    recipe = replace(BASE, hooks=(Backend(tmp_path, ("begin",)),))
    with pytest.raises(HookError, match=r"hook Backend.begin failed after 0 steps: ConnectionError: gone; mend it"):
        placed(recipe, tmp_path / "run").execute()


def test_an_event_file_that_cannot_be_written_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left")

    monkeypatch.setattr(TensorBoard, "tell", full)
    placed(BASE, tmp_path / "run", tensorboard=True).execute()
    assert capsys.readouterr().err.startswith("hook TensorBoard.log failed after 5 steps: OSError: No space left; the")


def tracked(run: RunOptions, backend: str, away: tuple[str, ...]) -> Recipe:
    """A recipe with a tracker, whose workers import it."""
    return replace(BASE, run=run, hooks=(Backend(Path(backend), away),))


def test_a_grid_goes_on_and_tells_the_rest_when_it_is_begun_again(tmp_path: Path) -> None:
    def job(*away: str) -> Job:
        arguments = {"backend": str(tmp_path), "away": away}
        return Job(recipe=tracked, arguments=arguments, run=RunOptions(device="cpu"), parent=tmp_path)

    away, back = job("end"), job()
    run_grid([away], workers=1)
    assert away.ended
    assert not away.done
    assert "end" not in Backend(tmp_path).has
    away.folder.rename(back.folder)  # the same run, with the backend there again
    assert not back.done
    run_grid([back], workers=1)
    assert back.done
    assert Backend(tmp_path).has == whole(back.folder)
