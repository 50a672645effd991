"""A stand-in for CUDA graphs on a CPU: it writes down what a call does to tensors, undoes it, and does it again.

So a number or a place that a replay finds no longer as it was shows here. What only a GPU shows: waiting for the
device, copies from the host, first launches within a capture, memory that a graph reuses.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from supermask.training import captured

T = TypeVar("T")


def aside(tensor: Tensor) -> Tensor:
    """The same memory, where torch does not count writes: it counts none of a replay."""
    return tensor.data


class Recording(TorchDispatchMode):
    """The operations that ran within, on the memory they ran on: as in a graph, numbers are those of then."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self._before: dict[int, tuple[Any, Any]] = {}  # memory that was met, and what it held

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in tree_leaves((args, kwargs)):  # not all operations say what they write: a batch norm's statistics
            if isinstance(tensor, Tensor):
                memory = tensor.untyped_storage()
                if memory.data_ptr() not in self._before:
                    self._before[memory.data_ptr()] = memory, memory.clone()
        made = func(*args, **kwargs)
        self._calls.append((func, *tree_map_only(Tensor, aside, (args, kwargs, made))))
        return made

    def undo(self) -> None:
        for memory, held in self._before.values():
            memory.copy_(held)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, made in self._calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


def record(call: Callable[[], T], device: torch.device) -> tuple[T, Callable[[], None]]:
    """In place of `supermask.training.captured.record` on a CPU."""
    if device.type != "cpu":
        return captured.record(call, device)
    recording = Recording()
    with torch.random.fork_rng(devices=[]), recording:  # a capture draws nothing
        results = call()
    recording.undo()
    return results, recording.replay


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps on a CPU can be captured, too; a number a capture."""
    made: list[int] = []

    def counted(call: Callable[[], T], device: torch.device) -> tuple[T, Callable[[], None]]:
        made.append(len(made))
        return record(call, device)

    monkeypatch.setattr(captured, "record", counted)
    monkeypatch.setattr(captured, "can_capture", lambda device: True)
    return made
