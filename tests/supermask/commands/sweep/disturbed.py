"""What is done to a command while it runs."""

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.context import ForkContext
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import tyro

import supermask
from supermask.training.loop import Loop

OWN = str(Path(supermask.__file__).parent)
FEW = 25  # calls of the library's functions, of which reading a ticket has more


@contextmanager
def disturbed(how: str) -> Iterator[None]:
    """Within the block the command that runs in this process, in an empty folder, is disturbed.

    Args:
        how: a signal and where it comes (begins: as the command line is read; reads: after a few calls; writes: as soon
            as it has made anything in the folder; works: after the first step of training, which for a grid one of its
            workers takes), "limit" and the largest size of a file, "later" and the steps after which no file grows, or
            nothing.
    """
    name, _, rest = how.partition(" ")
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(multiprocessing, "get_context", forking))
        if name == "limit":
            stack.enter_context(limited(int(rest)))
        elif name == "later":
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, before)
            stack.enter_context(after_a_step(lambda: limit(100)))
        elif name.startswith("SIG"):
            stack.enter_context(PLACES[rest](signal.Signals[name]))
        yield


@contextmanager
def limited(largest: int) -> Iterator[None]:
    """No file grows beyond that many bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit(largest)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def limit(largest: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def after_a_step(do: Callable[[], object]) -> Iterator[None]:
    real = Loop.take_step

    def step(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        do()

    with mock.patch.object(Loop, "take_step", step):
        yield


@contextmanager
def as_it_works(number: signal.Signals) -> Iterator[None]:
    command = os.getpid()
    left = [None]

    def once() -> None:
        if left:
            left.clear()
            os.kill(command, number)

    with after_a_step(once):
        yield


@contextmanager
def as_it_begins(number: signal.Signals) -> Iterator[None]:
    def first(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            os.kill(os.getpid(), number)
            return real(*args, **kwargs)

        return call

    parsers = (tyro, "cli"), (tyro.extras, "subcommand_cli_from_dict")
    with ExitStack() as stack:
        for owner, name in parsers:
            stack.enter_context(mock.patch.object(owner, name, first(getattr(owner, name))))
        yield


@contextmanager
def as_it_reads(number: signal.Signals) -> Iterator[None]:
    left = FEW

    def called(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        left -= event == "call" and frame.f_code.co_filename.startswith(OWN)
        if not left:
            sys.setprofile(None)
            os.kill(os.getpid(), number)

    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(None)


@contextmanager
def as_it_writes(number: signal.Signals) -> Iterator[None]:
    def then(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found = real(*args, **kwargs)
            if left and os.listdir():  # it may have been made elsewhere
                left.clear()
                os.kill(os.getpid(), number)
            return found

        return call

    left = [None]
    with ExitStack() as stack:
        for name in ("mkdir", "open"):
            stack.enter_context(mock.patch.object(os, name, then(getattr(os, name))))
        yield


PLACES: dict[str, Callable[[signal.Signals], Any]] = {
    "begins": as_it_begins,
    "reads": as_it_reads,
    "writes": as_it_writes,
    "works": as_it_works,
}


class Forking(ForkContext):
    """Workers as forks of this process, which has everything imported, and has computed nothing."""

    def set_forkserver_preload(self, modules: list[str]) -> None:
        """There is no other process to preload."""


def forking(method: str | None = None) -> Forking:
    return Forking()
