"""What W&B wrote offline, read as its own upload reads it, is what the run told."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wandb import Run
from wandb.proto.wandb_internal_pb2 import Record

from supermask import trackers
from supermask.runs.read import read_metrics
from tests.places import ROOT
from tests.supermask.runs.small_runs import BASE, placed
from tests.trackers.told import KILLED, Told, expected, run

_BLOCK, _HEAD = 32768, 7


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def times(folder: Path) -> list[Path]:
    """A folder for each time that a run was begun, in order."""
    return sorted(folder.glob("wandb/offline-run-*"))


def records(*folders: Path) -> Iterator[Any]:
    """The records of some times that a run was begun. The files are logs as LevelDB's are."""
    for file in (file for folder in folders for file in folder.glob("*.wandb")):
        data, at, held = file.read_bytes(), _HEAD, b""
        while at + _HEAD <= len(data):
            if _BLOCK - at % _BLOCK < _HEAD:
                at += _BLOCK - at % _BLOCK
                continue
            length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            held += data[at + _HEAD : at + _HEAD + length]
            at += _HEAD + length
            if kind in (1, 4):  # whole, or the last part
                yield Record.FromString(held)
                held = b""


def rows(*folders: Path) -> list[dict[str, Any]]:
    """History, without what W&B adds."""
    found = []
    for record in records(*folders):
        if record.HasField("history"):
            items = record.history.item
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
            found.append({name: value for name, value in row.items() if name == "_step" or not name.startswith("_")})
    return found


def told(*folders: Path) -> Told:
    return sorted(
        (row["step"], name, float(value))
        for row in rows(*folders)
        for name, value in row.items()
        if name not in ("_step", "step")
    )


@pytest.mark.parametrize("killed", KILLED)
def test_each_number_once_in_one_run(killed: Sequence[int], tmp_path: Path) -> None:
    run(tmp_path / "run", lambda: trackers.WandB(project="tickets", mode="offline"), killed)
    *stopped, last = begun = times(tmp_path / "run")
    assert told(last) == expected(tmp_path / "run")
    whole = rows(last)
    assert [row["_step"] for row in whole] == [*range(1, len(whole) + 1)], "rows of one number would be merged"
    assert [rows(one) for one in stopped] == [whole[: len(rows(one))] for one in stopped]
    runs = [record.run for record in records(*begun) if record.HasField("run")]
    assert {(one.run_id, one.project, one.display_name) for one in runs} == {(runs[0].run_id, "tickets", "run")}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert (config["training.lr"], config["run.seed"]) == (0.3, 0)
    (artifact,) = [
        one.request.log_artifact.artifact if one.HasField("request") else one.artifact
        for one in records(*begun)
        if one.HasField("artifact") or (one.HasField("request") and one.request.HasField("log_artifact"))
    ]
    assert artifact.type == "ticket"
    assert [content.path for content in artifact.manifest.contents] == ["ticket.safetensors"]
    exits = [record.exit.exit_code for record in records(*begun) if record.HasField("exit")]
    assert exits == [*[1] * len(killed), 0]


KILLED_BY_SIGNAL = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from supermask import trackers
from supermask.runs.hook import Hook
from tests.supermask.runs.small_runs import BASE, placed

class Kills(Hook):
    changes_training = False

    def after_step(self, now):
        if now.step == 17:
            os.kill(os.getpid(), signal.SIGKILL)

placed(replace(BASE, hooks=(trackers.WandB(mode="offline"), Kills())), Path(sys.argv[1])).execute()
"""


def test_what_wandb_had_in_memory_when_a_run_was_killed_is_told_again(tmp_path: Path) -> None:
    # With a service of its own, which ends with it.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    command = [sys.executable, "-c", KILLED_BY_SIGNAL, str(tmp_path / "run")]
    killed = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    lines = len(read_metrics(tmp_path / "run"))
    assert lines > 0
    placed(replace(BASE, hooks=(trackers.WandB(mode="offline"),)), tmp_path / "run", resume=True).execute()
    _, last = times(tmp_path / "run")
    assert told(last) == expected(tmp_path / "run")


def test_the_rows_that_the_server_has_are_not_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so where a run goes on: a row of a lower number would be dropped, with a warning."""
    monkeypatch.setattr(Run, "starting_step", 4)
    run(tmp_path / "run", lambda: trackers.WandB(mode="offline"))
    (only,) = times(tmp_path / "run")
    assert [row["_step"] for row in rows(only)] == [*range(4, len(read_metrics(tmp_path / "run")) + 1)]


def test_disabled_it_is_told_nothing(tmp_path: Path) -> None:
    run(tmp_path / "run", lambda: trackers.WandB(mode="disabled"), (8,))
    assert times(tmp_path / "run") == []
