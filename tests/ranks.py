"""Processes that meet as ranks of one group, forked from one that has imported torch and computed nothing."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch.multiprocessing


def on_ranks(work: Callable[..., object], *arguments: Any, ranks: int = 2) -> None:
    """`work(rank, *arguments)` in a process for each rank; the first that fails is raised here."""
    multiprocessing.set_forkserver_preload(["torch._dynamo", "supermask.runs.grid"])
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call]
        _begin, (dict(os.environ), work, arguments), nprocs=ranks, start_method="forkserver"
    )


def free_port() -> int:
    """Where processes of this machine can meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def meet(rank: int, port: int, ranks: int = 2) -> None:
    """Say in the environment, as torchrun does, which of the `ranks` this process is."""
    said = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks}
    os.environ.update({name: str(value) for name, value in said.items()})


def _begin(rank: int, environment: dict[str, str], work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()  # the process that is forked may have begun in another
    os.environ.update(environment)
    torch.set_num_threads(1)
    work(rank, *arguments)
