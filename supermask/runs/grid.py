"""Many runs of recipes at once: one process a run, one thread a process, so that a result depends on its seed alone.

Every run has a folder named after what it is, so that a grid begun again, or another grid with some of the same runs,
goes on with those that stopped and skips those that are done.
"""

import json
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from hashlib import sha256
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch

from supermask.checks import SupermaskError
from supermask.devices import device_named
from supermask.runs.identity import FIRST, RESULTS, differences, read_config
from supermask.runs.imports import IMPORTED, take
from supermask.runs.interrupts import Interrupted, Interrupts
from supermask.runs.options import RunOptions
from supermask.runs.parts import code_of_builder
from supermask.runs.plain import holds_address, plain
from supermask.runs.read import finished, settled
from supermask.runs.recipe import Recipe
from supermask.runs.run import execute
from supermask.runs.sources import called

_ZEROED = re.compile(r"scores='(\w+)', (lr='\w+', space='\w+', length=\d+), unselected='zero'")
"""A cycle that begins unselected edges at zero; folders of version 0.1.0 are named after an older spelling of it."""


class GridError(SupermaskError):
    """A grid that cannot go on; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a grid.

    Attributes:
        recipe: a recipe function at the top of a module.
        arguments: what it is called with, besides `run`; values whose repr says all that they are.
        run: seed and device; the grid gives it its folder.
        parent: of that folder.
    """

    recipe: Callable[..., Recipe]
    arguments: Mapping[str, Any]
    run: RunOptions
    parent: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "parent", Path(self.parent))  # a string will do

    @property
    def folder(self) -> Path:
        """`parent`/NAME-DIGEST-seedN; the digest is of the recipe's arguments, the code of its parts that is not
        supermask's, and the kind of device."""
        made = self.make()
        given = repr(sorted(self.arguments.items()))
        if holds_address(given):
            given = json.dumps(plain(self.arguments), sort_keys=True)
        said = _ZEROED.sub(r"scores='\1_masked', \2", f"{called(self.recipe)}({given})")
        said = f"{said} on {self.run.device.partition(':')[0]}"
        if FIRST["results"] != RESULTS:
            said += f" with results {RESULTS}"
        if code := made.code():
            said += f" of {json.dumps(code, sort_keys=True)}"
        return self.parent / f"{made.name}-{sha256(said.encode()).hexdigest()[:8]}-seed{self.run.seed}"

    def make(self, **options: Any) -> Recipe:
        """The recipe, with these run options in place of the job's."""
        return self.recipe(**self.arguments, run=replace(self.run, **options))

    def check(self) -> None:
        """Raise what a run of it would on account of its device, before any other is begun."""
        self.make().check_on(device_named(self.run.device))

    @property
    def done(self) -> bool:
        """Whether the run came to its end before, and nothing is left to do after it: what hooks do at the end, and
        the summary, which runs of 0.1.0 have none of.

        Raises:
            GridError: the folder has another run.
        """
        return self.ended and (settled(self.folder) or "results" not in (read_config(self.folder) or {}))

    @property
    def ended(self) -> bool:
        """Whether the run came to its end before.

        Raises:
            GridError: the folder has another run.
        """
        folder = self.folder
        if not finished(folder):
            return False
        began = read_config(folder)
        if began is None or "results" not in began:  # an earlier release named the folder after it, and said no more
            return True
        made = self.make()
        says = made.said()
        of_data = ("network", "device", "processes", "code")  # the folder's name has their part of it
        then = {k: v for k, v in began.items() if k not in of_data}
        # but for what a function of the user's calls its network
        if code := {k: v for k, v in began.get("code", {}).items() if k == "builder"}:
            then["code"] = code
        if code := code_of_builder(began.get("network", {}).get("name")):
            says["code"] = code
        if differing := differences(then, says, made.how):
            raise GridError(
                f"run folder {folder} holds a run of another configuration: {'; '.join(differing)}: the recipe was "
                "changed since; give the grid another folder"
            )
        return True


def run_grid(
    jobs: Sequence[Job], workers: int | None = None, on_done: Callable[[Path], object] = lambda _: None
) -> None:
    """Run every job that is not done.

    Args:
        jobs: what to run; one that is there twice runs once.
        workers: processes; by default one a core that this process may use.
        on_done: called with each run's folder as it ends.

    Raises:
        Interrupted: a signal came in; the runs in progress have saved, and go on when the grid is begun again.
        GridError: a process was killed, for want of memory perhaps.
        Exception: the first that a run raises; the runs in progress have saved.
    """
    todo = {job.folder: job for job in jobs if not job.done}
    if not todo:
        return
    workers = min(workers or cores(), len(todo))
    others = set(multiprocessing.active_children())
    pooled = ProcessPoolExecutor(workers, mp_context=_imported(), initializer=_begin, initargs=(dict(os.environ),))
    with Interrupts("").listen(), pooled as pool:
        try:
            for future in as_completed([pool.submit(_execute, job, tuple(IMPORTED)) for job in todo.values()]):
                on_done(future.result())
        except BaseException as error:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()  # its run saves and ends
            pool.shutdown(cancel_futures=True)
            if isinstance(error, Interrupted):
                what = f"{error}; the runs in progress have saved: give the same command to go on"
                stop = Interrupted(what, error.signal)
                stop.say()
                raise stop from error
            if isinstance(error, BrokenProcessPool):
                raise GridError(
                    "a run's process was killed, perhaps because memory ran out: give the same command with fewer "
                    "workers to go on"
                ) from error
            raise


def cores() -> int:
    """How many runs go on at once, unless told otherwise: one a core that this process may use."""
    return len(os.sched_getaffinity(0))


def _imported() -> BaseContext:
    """Begins workers as forks of a process that has imported torch, its compiler and this library, and neither touches
    a device nor computes anything: a fork of this one would hang in torch's threads. Each worker imports recipes for
    itself, as their files are by then."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", __name__])
    return context


def _begin(environment: dict[str, str]) -> None:
    os.environ.clear()  # the process that is forked may have begun in another
    os.environ.update(environment)
    os.environ["OMP_NUM_THREADS"] = "1"  # so that a run does not choose
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches every process of a terminal; the grid itself stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    """A grid that was killed leaves no worker behind: its run saves and ends."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _execute(job: Job, imported: Sequence[str]) -> Path:
    for module in imported:
        take(module)
    folder = job.folder
    try:
        execute(job.make(folder=folder, resume=True, quiet=True))  # what stops it the grid says, once
    except Interrupted as stop:
        os._exit(128 + stop.signal)  # the pool would go on with the next run
    return folder
