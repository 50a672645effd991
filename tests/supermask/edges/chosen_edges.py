"""Which edges are selected, by the layer and by a sort."""

import torch
from torch import Tensor

from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import unpack


def chosen(edges: SearchedEdges) -> Tensor:
    return unpack(edges.mask(), edges.cols)


def oracle(edges: SearchedEdges) -> Tensor:
    scores = edges.scores.detach().flatten()
    order = torch.sort(scores.abs() if edges.rule.absolute else scores, descending=True, stable=True).indices
    mask = torch.zeros(edges.count, dtype=torch.bool)
    return mask.index_fill_(0, order[: int(edges.kept)], True).view(edges.rows, edges.cols)
