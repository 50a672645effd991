"""How a cycle begins."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from supermask.edges.in_model import searched_edges, set_remaining
from supermask.kernels.base.bits import unpack
from supermask.methods.cycles import Cycle
from supermask.training.evaluate import batch_norms


@torch.no_grad()
def begin_cycle(model: nn.Module, cycle: Cycle, number: int, initial: Mapping[str, Tensor]) -> None:
    """Scores, search space and rate as cycle `number` (from 1) starts with them.

    Batch-norm statistics and whatever is trained besides the scores carry over with inherited scores; with initial or
    fresh ones they start again.

    Args:
        initial: by name, the trained parameters that are not scores, as they were before any training.
    """
    layers = searched_edges(model).values()
    zeroed = cycle.scores.endswith("_masked")
    selected = [unpack(edges.mask(), edges.cols).view(edges.shape) for edges in layers] if zeroed else []
    for edges in layers:
        if cycle.space == "survivors":
            edges.remove_unselected()
        else:
            edges.survivors = None
        if cycle.scores in ("initial", "initial_masked"):
            edges.draw_scores()
        elif cycle.scores == "fresh":
            edges.draw_scores(generation=number - 1)
    for edges, mask in zip(layers, selected, strict=zeroed):
        edges.scores.mul_(mask)
    if not cycle.scores.startswith("inherit"):
        for norm in batch_norms(model):
            norm.reset_running_stats()
        for name, value in initial.items():
            model.get_parameter(name).copy_(value)
    set_remaining(model, cycle.remaining)
