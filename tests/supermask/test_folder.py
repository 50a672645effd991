"""Run folders: what they refuse, and that nothing is overwritten."""

from pathlib import Path

import pytest

from supermask.folder import RunFolder, RunFolderError, read_metrics


def test_events_come_back_in_order(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b")
    folder.log("epoch", loss=0.5)
    folder.log("export", file="t")
    assert read_metrics(folder.path) == [{"event": "epoch", "loss": 0.5}, {"event": "export", "file": "t"}]


def test_a_folder_that_holds_a_run_is_refused_and_unchanged(tmp_path: Path) -> None:
    RunFolder(tmp_path).log("epoch", loss=1.0)
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
