"""What W&B wrote offline, read as its own upload reads it, is what the run told."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from supermask import trackers
from tests.trackers.told import KILLED, Told, expected, run

_BLOCK, _HEAD = 32768, 7


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def records(folder: Path) -> Iterator[Any]:
    """The records of all times that a run was begun, in order. The files are logs as LevelDB's are."""
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
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


def rows(folder: Path) -> list[dict[str, Any]]:
    """History, without what W&B adds."""
    found = []
    for record in records(folder):
        if record.HasField("history"):
            items = record.history.item
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
            found.append({name: value for name, value in row.items() if name == "_step" or not name.startswith("_")})
    return found


def told(folder: Path) -> Told:
    return sorted(
        (row["step"], name, float(value))
        for row in rows(folder)
        for name, value in row.items()
        if name not in ("_step", "step")
    )


@pytest.mark.parametrize("killed", KILLED)
def test_each_number_once_in_one_run(killed: Sequence[int], tmp_path: Path) -> None:
    run(tmp_path / "run", lambda: trackers.WandB(project="tickets", mode="offline"), killed)
    assert told(tmp_path / "run") == expected(tmp_path / "run")
    numbers = [row["_step"] for row in rows(tmp_path / "run")]
    assert numbers == sorted(set(numbers)), "rows of one number would be merged"
    begun = [record.run for record in records(tmp_path / "run") if record.HasField("run")]
    assert {(one.run_id, one.project, one.display_name) for one in begun} == {(begun[0].run_id, "tickets", "run")}
    config = {item.key: json.loads(item.value_json) for item in begun[0].config.update}
    assert (config["training.lr"], config["run.seed"]) == (0.3, 0)
    (artifact,) = [
        one.request.log_artifact.artifact if one.HasField("request") else one.artifact
        for one in records(tmp_path / "run")
        if one.HasField("artifact") or (one.HasField("request") and one.request.HasField("log_artifact"))
    ]
    assert artifact.type == "ticket"
    assert [content.path for content in artifact.manifest.contents] == ["ticket.safetensors"]
    exits = [record.exit.exit_code for record in records(tmp_path / "run") if record.HasField("exit")]
    assert exits == [*[1] * len(killed), 0]
