"""Checkpoints: whole or absent, recognised when damaged, read without building anything but plain values."""

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from supermask.runs.checkpoint import CheckpointError, Checkpoints, read


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.newest(pytest.fail) is None
    checkpoints.save({"tensor": torch.arange(3), "list": [1, {"a": None}], "rate": 0.1})
    payload = checkpoints.newest(pytest.fail)
    assert payload is not None
    state = read(payload)
    assert torch.equal(state.pop("tensor"), torch.arange(3))
    assert state == {"list": [1, {"a": None}], "rate": 0.1}


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_few_stay(keep: int, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep)
    paths = [checkpoints.save({"number": number}) for number in range(5)]
    assert checkpoints.paths() == paths[-keep:]
    payload = checkpoints.newest(pytest.fail)
    assert payload is not None
    assert read(payload) == {"number": 4}


def test_none_to_keep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep=0"):
        Checkpoints(tmp_path, 0)


@given(data=st.data())
def test_any_damage_is_found(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A flipped bit anywhere, any length too short, bytes added."""
    checkpoints = Checkpoints(tmp_path_factory.mktemp("damage"))
    checkpoints.save({"number": 1})
    path = checkpoints.save({"number": 2})
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
    path.write_bytes(data.draw(st.sampled_from([flipped, whole[:place], whole + b"\0"])))
    said: list[str] = []
    payload = checkpoints.newest(said.append)
    assert payload is not None
    assert read(payload) == {"number": 1}
    assert [f"checkpoint {path} is damaged" in sentence for sentence in said] == [True]
    assert path.with_suffix(".damaged").exists()
    # The number of what was put aside is free again, and the next one is the newest.
    checkpoints.save({"number": 3})
    payload = checkpoints.newest(pytest.fail)
    assert payload is not None
    assert read(payload) == {"number": 3}


def test_nothing_but_plain_values_is_built(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"path": Path("x")})
    payload = checkpoints.newest(pytest.fail)
    assert payload is not None
    with pytest.raises(pickle.UnpicklingError):
        read(payload)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    first = checkpoints.save({"number": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match=r"00000002\.pt could not be written \(No space .*00000001\.pt stands"):
        checkpoints.save({"number": 2})
    assert list(checkpoints.folder.iterdir()) == [first]


@pytest.mark.usefixtures("unsynced_folders")
def test_a_checkpoint_that_a_power_cut_may_lose_takes_the_place_of_none(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    said = r"\.pt is written, but a power cut may lose it.*; "
    with pytest.raises(CheckpointError, match=f"00000001{said}there is none before it"):
        checkpoints.save({"number": 1})
    with pytest.raises(CheckpointError, match=f"00000002{said}.*00000001.pt stands"):
        checkpoints.save({"number": 2})
    assert [path.name for path in checkpoints.paths()] == ["00000001.pt", "00000002.pt"]
    payload = checkpoints.newest(pytest.fail)
    assert payload is not None
    assert read(payload) == {"number": 2}
