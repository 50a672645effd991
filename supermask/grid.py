"""Many runs of recipes at once: one process a run, one thread a process, so that a result depends on its seed alone."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import torch

from supermask.recipe import Recipe, RunResult


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a grid.

    Attributes:
        recipe: a recipe function at the top of a module.
        arguments: what it is called with.
    """

    recipe: Callable[..., Recipe]
    arguments: Mapping[str, Any]


def run_grid(jobs: Sequence[Job], workers: int | None = None) -> Iterator[tuple[int, RunResult]]:
    """Run every job, and give (its index, its result) as each ends.

    Args:
        jobs: what to run.
        workers: processes; by default one a core.

    Raises:
        Exception: the first that a run raises; the runs that have not begun are dropped.
    """
    spawn = multiprocessing.get_context("spawn")  # a forked copy of torch's thread pool would hang
    workers = workers or os.cpu_count() or 1
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = {pool.submit(_execute, job): index for index, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _execute(job: Job) -> RunResult:
    return job.recipe(**job.arguments).execute()
