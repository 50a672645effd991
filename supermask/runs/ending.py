"""How a command ends: its exit status, one sentence where something is wrong, and what becomes of what it printed.

0: done; 1: what was run broke down, or what was printed could not be written; 2: what was given is at fault; 128 + n:
signal n ended it. A reader of the output that left, as `| head` does, ends it as SIGPIPE would: silently, with 141.
"""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import UnsupportedOperation
from typing import Any, NoReturn, TextIO

from supermask.checks import SupermaskError
from supermask.runs.interrupts import Interrupted, Interrupts

_UNREAD = 128 + signal.SIGPIPE


@contextmanager
def told(*besides: type[Exception]) -> Iterator[None]:
    """Within the block what goes wrong ends the command with its sentence and its status; `besides` do so with 2."""
    try:
        with Interrupts(advice="").listen():
            yield
    except Interrupted as stop:  # before SystemExit, which it is
        stop.say()
        _end(None, stop.status)
    except KeyboardInterrupt:  # of a thread that cannot listen
        _end("interrupted by SIGINT", 128 + signal.SIGINT)
    except SupermaskError as error:
        _end(error, error.status)
    except besides as error:
        _end(error, SupermaskError.status)
    except OSError as error:
        _end_unwritten(error)
        raise
    except SystemExit as end:
        # So rich leaves where the reader did; argparse says nothing of help that nobody reads.
        if isinstance(end.__context__, BrokenPipeError) or (not end.code and _reader_left()):
            _end(None, _UNREAD)
        _end(None, end.code)
    else:
        if lost := _flush():
            _end_unread(lost)


def _end(sentence: object, status: Any) -> NoReturn:
    if sentence is not None:
        _say(sentence)
    lost = _flush()
    if lost and not status:
        _end_unread(lost)
    sys.exit(status)


def _end_unwritten(error: OSError) -> None:
    """End by an error that no part of the library gave a sentence: of standard output, or of a file by its name. Any
    other is a fault of the program."""
    if isinstance(error, BrokenPipeError) and _reader_left():
        _flush()
        _end_unread(error)
    if error.filename is not None:
        _end(f"{error.filename}: {error.strerror or error}", SupermaskError.status)
    if lost := _flush("\n"):  # what was lost may be in no buffer any more
        _end_unread(lost)


def _end_unread(error: OSError) -> NoReturn:
    """The end by standard output that cannot be written."""
    if isinstance(error, BrokenPipeError):
        sys.exit(_UNREAD)
    _say(f"cannot write to standard output: {error.strerror}")
    sys.exit(1)


def _say(sentence: object) -> None:
    with suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


def _reader_left() -> bool:
    """Whether nobody will read standard output any more."""
    if sys.stdout is None:
        return False
    try:
        number = sys.stdout.fileno()
    except UnsupportedOperation:  # it is no file but a string, say
        return False
    poll = select.poll()
    poll.register(number, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _flush(more: str = "") -> OSError | None:
    """Write what was printed, and `more`; why standard output did not take it, if it did not."""
    _written(sys.stderr, "")
    return _written(sys.stdout, more)


def _written(stream: TextIO | None, more: str) -> OSError | None:
    """Where a stream cannot be written drop what it holds: the interpreter would try again at its end, and complain."""
    if stream is None:  # it was closed before the command began
        return None
    try:
        stream.write(more)
        stream.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return error
    return None
