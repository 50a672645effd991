"""Signals: when they wait, when they end the run, and that nothing is left of the handlers."""

import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supermask.runs.interrupts import Interrupted, Interrupts
from tests.recipes.command import run


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def hangs_up() -> Iterator[None]:
    """SIGHUP as a terminal gives it to a command: not ignored, as `nohup` passes it on."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangs_up")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_raises_at_once_outside_of_deferred(number: signal.Signals) -> None:
    interrupts = Interrupts()
    with interrupts.listen(), pytest.raises(Interrupted, match=f"interrupted by {number.name}") as stop:
        send(number)
    assert stop.value.signal == number
    assert interrupts.pending is None


def test_within_deferred_signals_wait_and_a_second_ctrl_c_raises() -> None:
    interrupts = Interrupts()
    with interrupts.listen():
        with interrupts.deferred():
            send(signal.SIGTERM)
            assert interrupts.pending == signal.SIGTERM
            send(signal.SIGTERM)  # a launcher may repeat itself
            assert interrupts.pending == signal.SIGTERM
            with pytest.raises(Interrupted):
                send(signal.SIGINT)
        with pytest.raises(Interrupted):
            send(signal.SIGINT)


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP])
def test_handlers_come_back_and_an_ignored_signal_stays_ignored(ignored: signal.Signals) -> None:
    term = signal.getsignal(signal.SIGTERM)
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        with Interrupts().listen():
            assert signal.getsignal(signal.SIGTERM) is not term
            send(ignored)
        assert signal.getsignal(ignored) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is term
    finally:
        signal.signal(ignored, before)


def test_in_another_thread_it_does_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with Interrupts().listen():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path

from supermask.recipes import digits_ep
from supermask.recipes._settings import DIGITS
from supermask import RunOptions
from tests.recipes.stopped import after

import os, signal

name, place = sys.argv[1:]
after(place, 1, lambda *_: os.kill(os.getpid(), signal.Signals[name]))
run = RunOptions(folder="run", device="cpu", quiet=True)
digits_ep.recipe(training=replace(DIGITS, epochs=1), run=run).execute()
print("ended")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("place", "says"), [("step", "at step 1 (epoch 1 of the run); saved"), ("line", ": go on")])
def test_a_script_that_catches_nothing_ends_with_the_sentence_and_the_status(
    number: signal.Signals, place: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    done = run("mine", number.name, place, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (128 + number, "")
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"interrupted by {number.name}")
    assert says in sentence


def test_what_is_said_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    stop = Interrupted("interrupted", signal.SIGTERM)
    stop.say()
    stop.say()
    assert capsys.readouterr().err == "interrupted\n"
    again = pickle.loads(pickle.dumps(stop))
    assert (type(again), str(again), again.signal, again.status) == (Interrupted, "interrupted", 15, 143)


def test_a_script_may_catch_it_as_ctrl_c_or_as_an_exit() -> None:
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind) as caught:
            raise Interrupted("why", signal.SIGINT)
        assert getattr(caught.value, "code", None) == 130
