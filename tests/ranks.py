"""Processes that meet as ranks of one group, forked from one that has imported torch and computed nothing."""

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import torch.multiprocessing


def on_ranks(work: Callable[..., object], *arguments: Any, ranks: int = 2) -> None:
    """`work(rank, *arguments)` in a process for each rank; the first that fails is raised here."""
    multiprocessing.set_forkserver_preload(["torch._dynamo", "supermask.runs.grid"])
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call]
        _begin, (dict(os.environ), work, arguments), nprocs=ranks, start_method="forkserver"
    )


def _begin(rank: int, environment: dict[str, str], work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()  # the process that is forked may have begun in another
    os.environ.update(environment)
    torch.set_num_threads(1)
    work(rank, *arguments)
