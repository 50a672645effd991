"""How a cycle begins."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from supermask.edges.in_model import searched_edges
from supermask.kernels.base.bits import unpack
from supermask.methods.cycles import Cycle
from supermask.networks.rates import set_remaining
from supermask.training.evaluate import batch_norms


@torch.no_grad()
def begin_cycle(model: nn.Module, cycle: Cycle, number: int, initial: Mapping[str, Tensor]) -> None:
    """Scores, search space and rate as cycle `number` (from 1) starts with them.

    Batch-norm statistics and whatever is trained besides the scores carry over with inherited scores; with initial or
    fresh ones they start again.

    Args:
        initial: by name, the trained parameters that are not scores, as they were before any training.
    """
    for edges in searched_edges(model).values():
        selected = edges.mask()
        edges.survivors = selected if cycle.space == "survivors" else None
        if cycle.scores != "inherit":
            edges.draw_scores(generation=number - 1 if cycle.scores == "fresh" else 0)
        if cycle.unselected == "zero":
            edges.scores.mul_(unpack(selected, edges.cols).view(edges.shape))
    if cycle.scores != "inherit":
        for norm in batch_norms(model):
            norm.reset_running_stats()
        for name, value in initial.items():
            model.get_parameter(name).copy_(value)
    set_remaining(model, cycle.remaining)
