"""A recipe as a user runs it, but stopped at a chosen moment: `python -m tests.recipes.stopped HOW COUNT MODULE ...`.

HOW is a signal and a place (SIGKILL:step), sent to this very process after it passed the place COUNT times; or one of
`_OTHERS`. The rest of the command line is the recipe's own.
"""

import os
import resource
import runpy
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch

from supermask.edges.in_model import searched_edges
from supermask.runs import measured, stages
from supermask.runs.folder import RunFolder
from supermask.training.loop import Loop

_PLACES: dict[str, tuple[Any, str]] = {
    "step": (Loop, "take_step"),
    "line": (RunFolder, "log"),
    "sync": (os, "fsync"),
    "rename": (os, "replace"),
    "evaluation": (measured, "right_of"),
    "export": (stages, "save"),
}


def after(place: str, count: int, do: Callable[..., object]) -> None:
    """Call `do` with the arguments of the place's `count`-th call, after it."""
    owner, name = _PLACES[place]
    function = getattr(owner, name)
    left = count

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        result = function(*args, **kwargs)
        left -= 1
        if left == 0:
            do(*args)
        return result

    setattr(owner, name, call)


def limit_files(largest: int, action: signal.Handlers = signal.SIG_IGN) -> None:
    """No file grows beyond `largest` bytes: writing fails as on a full disk, or with SIG_DFL kills in mid-write."""
    signal.signal(signal.SIGXFSZ, action)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))


def disturb(loop: Loop, *_: Any) -> None:
    """The scores of rank 1 change behind the others' back."""
    if loop.group.rank == 1:
        with torch.no_grad():
            searched_edges(loop.model)["fc2"].scores.neg_().mul_(1.5)
            searched_edges(loop.model)["fc2"].scores[0] += 9


def die(loop: Loop, *_: Any) -> None:
    """Rank 1 fails."""
    if loop.group.rank == 1:
        raise OSError("the memory of rank 1 is gone")


def tell_the_job(loop: Loop, *_: Any) -> None:
    """Rank 0 tells torchrun to stop, and takes no further step before torchrun has passed it on."""
    if loop.group.first:
        came, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        os.kill(os.getppid(), signal.SIGTERM)
        os.read(came, 1)


_OTHERS: dict[str, Callable[[int], None]] = {
    "full": limit_files,
    "cut": lambda size: after("step", 40, lambda *_: limit_files(size, signal.SIG_DFL)),
    "disturb": lambda count: after("step", count, disturb),
    "die": lambda count: after("step", count, die),
    "group": lambda count: after("step", count, lambda *_: os.killpg(os.getpgrp(), signal.SIGTERM)),
    "job": lambda count: after("step", count, tell_the_job),
}


if __name__ == "__main__":
    how, count, module = sys.argv[1:4]
    if how in _OTHERS:
        _OTHERS[how](int(count))
    else:
        name, _, place = how.partition(":")
        number = signal.Signals[name]
        after(place, int(count), lambda *_: os.kill(os.getpid(), number))
    sys.argv[1:] = sys.argv[4:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
