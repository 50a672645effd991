"""SIGINT, SIGTERM and SIGHUP: a run finishes its step, saves, and ends with a clear code."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class Interrupted(KeyboardInterrupt, SystemExit):
    """A signal ended the run; `str` says where it stood.

    It is a SystemExit too: a script that does not catch it ends with `status`, where a KeyboardInterrupt of another
    class would end it with a traceback and 1.

    Attributes:
        signal: its number.
        status: a command that it ends exits with it: 128 + signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number
        self.code = self.status
        self._said = False

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[str, int]]:
        return type(self), (str(self), self.signal)

    @property
    def status(self) -> int:
        return 128 + self.signal

    def say(self) -> None:
        """Print the sentence to stderr, unless it was: the interpreter ends at a SystemExit without a word."""
        if not self._said:
            self._said = True
            with suppress(OSError):
                print(self, file=sys.stderr, flush=True)


class Interrupts:
    """Signals that came in while `listen` was on.

    Within `deferred` a signal waits to be asked for, but a second SIGINT raises: somebody is in a hurry. Elsewhere a
    signal raises at once.

    Args:
        advice: what the sentence of one that raises at once ends with.
    """

    def __init__(self, advice: str = ": go on from the last checkpoint with --resume") -> None:
        self.pending: int | None = None
        self._advice = advice
        self._deferring = False

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP; in a thread other than the main one, which cannot, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
        # An ignored SIGINT (a grid's worker) stays ignored, and so does SIGHUP under nohup.
        before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
        for number in before:
            signal.signal(number, self._came)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block signals are noted in `pending`, until a second SIGINT."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _came(self, number: int, _frame: FrameType | None) -> None:
        if self._deferring and (self.pending is None or number != signal.SIGINT):
            self.pending = self.pending or number
            return
        raise Interrupted(f"interrupted by {signal.Signals(number).name}{self._advice}", number)
