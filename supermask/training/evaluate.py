"""Accuracy, and batch-norm statistics that fit the final mask."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from supermask.data.base import Batch
from supermask.edges.selection import selected_once
from supermask.networks.norms import is_batch_norm


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[Batch]) -> float:
    """Fraction of `batches` (inputs, labels) that `model` classifies right, in eval mode; its mode is restored."""
    right, count = right_of(model, batches).tolist()
    if not count:
        raise ValueError("no batch to evaluate on")
    return right / count


@torch.no_grad()
def right_of(model: nn.Module, batches: Iterable[Batch]) -> Tensor:
    """(classified right, all) of the inputs in `batches`: int64 [2], on the batches' device."""
    counted: Tensor | None = None
    with in_mode(model, training=False), selected_once(model):
        for inputs, labels in batches:
            if counted is None:
                counted = torch.zeros(2, dtype=torch.int64, device=labels.device)
            if len(labels):  # one process's share of a short last batch can be empty
                counted[0] += (model(inputs).argmax(dim=1) == labels).sum()
                counted[1] += len(labels)
    return torch.zeros(2, dtype=torch.int64) if counted is None else counted


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Replace batch-norm running statistics by the mean over `batches` with the mask of this moment.

    Running statistics go stale when the mask changes late in a cycle. Only the batch norms run in training mode:
    dropout stays off and no selected edge is recorded. A network without batch norm is left as it is.

    Raises:
        ValueError: no batch; the statistics are then as they were.
    """
    norms = batch_norms(model)
    if not norms:
        return
    given = iter(batches)
    first = next(given, None)
    if first is None:
        raise ValueError("no batch to make batch-norm statistics from")
    momenta = [norm.momentum for norm in norms]
    with in_mode(model, training=False):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
            norm.train()
        try:
            with selected_once(model):
                for inputs, _ in chain((first,), given):
                    model(inputs)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def batch_norms(model: nn.Module) -> list[nn.BatchNorm1d]:
    """The batch norms of `model` that keep running statistics."""
    return [module for module in model.modules() if is_batch_norm(module) and module.track_running_stats]


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Within the block all modules of `model` are in that mode; then each is in its own again."""
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode
