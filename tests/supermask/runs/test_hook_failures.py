"""Hooks that fail: what ended the run is what is raised, and what it saved stands."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from supermask.runs.hook import Hook, HookError, Now
from supermask.runs.interrupts import Interrupted
from supermask.runs.read import read_summary
from supermask.training.non_finite import NonFiniteError
from supermask.training.training import Training
from tests.supermask.runs.small_runs import BASE, placed


class Unclosed(Hook):
    """Cannot let go, and counts how often it was asked to."""

    changes_training = False

    def __init__(self, what: str = "still held") -> None:
        self.what = what
        self.asked = 0

    def close(self) -> None:
        self.asked += 1
        raise OSError(self.what)


class Stopped(Hook):
    """A signal comes in with a step."""

    changes_training = False

    def after_step(self, now: Now) -> None:
        if now.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_ended_the_run_stands_where_hooks_cannot_let_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hooks = Unclosed(), Stopped(), Unclosed("held too")
    with pytest.raises(Interrupted, match="interrupted by SIGTERM at step 8") as stop:
        placed(replace(BASE, hooks=hooks), tmp_path / "run").execute()
    assert stop.value.status == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    for what in ("still held", "held too"):
        assert f"hook Unclosed.close failed after 8 steps: OSError: {what}; what the run saved stands\n" in said
    placed(BASE, tmp_path / "run", resume=True).execute()


def test_training_that_broke_down_says_so_where_a_hook_cannot_let_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = replace(BASE, training=Training(epochs=2, lr=1e30), hooks=(Unclosed(),))
    with pytest.raises(NonFiniteError, match="lower learning rate"):
        placed(broken, tmp_path / "run").execute()
    assert "hook Unclosed.close failed after" in capsys.readouterr().err


def test_a_run_that_ended_well_is_whole_where_hooks_cannot_let_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hooks = Unclosed(), Unclosed("held too")
    with pytest.raises(HookError, match=r"close failed after 20 steps: OSError: still held; what the run saved stands"):
        placed(replace(BASE, hooks=hooks), tmp_path / "run").execute()
    assert "OSError: held too; what the run saved stands\n" in capsys.readouterr().err
    assert [hook.asked for hook in hooks] == [1, 1]
    assert (tmp_path / "run" / "summary.json").exists()
    assert read_summary(tmp_path / "run").finished
