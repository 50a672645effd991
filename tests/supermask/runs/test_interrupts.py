"""Signals: when they wait, when they end the run, and that nothing is left of the handlers."""

import os
import signal
import threading

import pytest

from supermask.runs.interrupts import Interrupted, Interrupts


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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


def test_handlers_come_back_and_an_ignored_signal_stays_ignored() -> None:
    term = signal.getsignal(signal.SIGTERM)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts().listen():
            assert signal.getsignal(signal.SIGTERM) is not term
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is term
    finally:
        signal.signal(signal.SIGINT, before)


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
