"""config.json says which supermask a run was begun with, and a resumed run what is another and what that means."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import supermask
from supermask.runs import environment
from supermask.runs.environment import changed_environment, commit_of
from tests.supermask.runs.small_runs import BASE, Killed, a_save_every, placed, watched


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@e"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *who, "-C", root, *arguments], env=variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with a commit."""
    root = tmp_path / "clone"
    (root / "supermask").mkdir(parents=True)
    (root / "supermask" / "a.py").write_text("1\n")
    (root / ".gitignore").write_text("__pycache__/\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "one")
    return root


def test_a_clone_says_its_commit_and_whether_it_was_changed(clone: Path) -> None:
    commit = git(clone, "rev-parse", "HEAD")
    assert commit_of(clone) == {"commit": commit, "changed": False}
    (clone / "runs").mkdir()
    (clone / "runs" / "config.json").write_text("{}")
    (clone / "supermask" / "__pycache__").mkdir()
    (clone / "supermask" / "__pycache__" / "a.pyc").write_text("")
    assert commit_of(clone) == {"commit": commit, "changed": False}, "what a run leaves is no change"
    (clone / "supermask" / "b.py").write_text("2\n")
    assert commit_of(clone)["changed"] is True
    (clone / "supermask" / "b.py").unlink()
    found = []
    for text in ("3\n", "4\n"):
        (clone / "supermask" / "a.py").write_text(text)
        found.append(commit_of(clone))
    assert [one["changed"] for one in found] == [True, True]
    assert found[0]["changes"] != found[1]["changes"]


def test_another_s_repository_is_none_of_its(clone: Path, tmp_path: Path) -> None:
    """A package that is installed somewhere inside a repository."""
    inside = clone / ".venv" / "lib" / "site-packages"
    inside.mkdir(parents=True)
    assert commit_of(inside) == {}
    assert commit_of(tmp_path) == {}
    assert commit_of(tmp_path / "nowhere") == {}


def test_git_is_asked_of_this_folder_whatever_its_variables_say(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(clone, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert commit_of(clone)["commit"] == commit


def test_without_git_there_is_no_commit(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert commit_of(clone) == {}
    broken = tmp_path / "bin" / "git"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    assert commit_of(clone) == {}
    assert environment.environment()["supermask"] == supermask.__version__


def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path) == {}


NOW = {"python": "3", "torch": "2", "machine": "m", "threads": 1, "supermask": "1.0", "commit": "a", "changed": False}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"supermask": "0.9"}, "supermask was '0.9', is '1.0': the run goes on, to the same bits: both give the same"),
        ({"commit": "b"}, "commit was 'b', is 'a': the run goes on, to the same bits: both"),
        ({"commit": None}, "commit was not recorded, is 'a': the run goes on, to the same bits: both"),
        ({"changed": True}, "changed was True, is False: the run goes on, to the same bits where the changes to the c"),
        ({"threads": 2}, "threads was 2, is 1: the run goes on, but not to the same bits for certain"),
        ({"torch": "1", "commit": "b"}, "torch was '1', is '2'; commit was 'b', is 'a': the run goes on, but not to"),
    ],
)
def test_what_is_said_of_another_environment(
    changes: dict[str, Any], says: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "environment", lambda: NOW)
    said = changed_environment({**NOW, **changes})
    assert said == says if says is None else (said or "").startswith(says)


def test_a_run_says_its_version_and_a_resumed_one_that_it_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with watched(100), a_save_every(3), pytest.raises(Killed):
        placed(BASE, folder, checkpoint_seconds=3).execute()
    config = json.loads((folder / "config.json").read_text())
    assert config["environment"]["supermask"] == supermask.__version__
    config["environment"] |= {"supermask": "0.0.9"}
    (folder / "config.json").write_text(json.dumps(config))
    placed(BASE, folder, resume=True).execute()
    said = capsys.readouterr().err
    assert f"{folder}: supermask was '0.0.9', is '{supermask.__version__}': the run goes on" in said


def test_the_package_that_makes_the_network_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "version", lambda package: f"{package} 1")
    assert environment.environment("timm/resnet10t")["timm"] == "timm 1"
    assert environment.environment("transformers/AutoModelForImageClassification")["transformers"] == "transformers 1"
    for network in ("", "mine/timm", "torchvision/resnet18", "resnet18"):
        assert not {"timm", "transformers"} & environment.environment(network).keys()
    began = environment.environment("timm/resnet10t")
    assert changed_environment(began) is None
    monkeypatch.setattr(environment, "version", lambda package: f"{package} 2")
    said = changed_environment(began)
    assert said is not None
    assert said.startswith("timm was 'timm 1', is 'timm 2': the run goes on, but not to the same bits for certain")
