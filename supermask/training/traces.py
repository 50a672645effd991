"""What is recorded of the scores while a search goes on: ranks of a few sampled edges, and histograms.

The rank of an edge is the share of its layer's edges that come before it, so that it is selected when its rank is below
the layer's remaining rate ("Soft iEP: on the exploration inefficacy of gradient-based strong lottery exploration",
Figure 5b). They are taken once an epoch.
"""

from typing import Any

import torch
from torch import Tensor, nn

from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import unpack
from supermask.kernels.base.keys import REMOVED_KEY, score_keys

BINS = 64


class Traces:
    """Ranks of the same sampled edges through a run.

    Args:
        model: a searched network.
        seed: of the sample, which is uniform over all masked edges.
        count: edges in the sample; fewer where the network has fewer.
    """

    def __init__(self, model: nn.Module, seed: int, count: int = 200) -> None:
        sizes = torch.tensor([edges.count for edges in searched_edges(model).values()])
        total = int(sizes.sum())
        generator = torch.Generator().manual_seed(seed % (1 << 63))
        drawn = torch.randint(total, (4 * count,), generator=generator).unique()
        chosen = drawn[torch.randperm(len(drawn), generator=generator)[:count]].sort().values
        ends = sizes.cumsum(0)
        layers = torch.bucketize(chosen, ends, right=True)
        self._flat = {
            index: (chosen[layers == index] - (ends[index] - sizes[index])) for index in layers.unique().tolist()
        }
        self._names = list(searched_edges(model))

    def edges(self) -> dict[str, Any]:
        """Which edges these are: layer names, and (index of the layer, flat index in it) of each edge."""
        return {
            "layers": self._names,
            "edges": [[index, place] for index, places in self._flat.items() for place in places.tolist()],
        }

    def ranks(self, model: nn.Module) -> dict[str, Any]:
        """For each edge its rank in its layer, in [0, 1), and whether it is selected."""
        ranks: list[float] = []
        selected: list[int] = []
        layers = list(searched_edges(model).values())
        for index, places in self._flat.items():
            edges = layers[index]
            keys = score_keys(edges.rule.keys(edges).detach().flatten(), edges.rule.absolute)
            if edges.survivors is not None:
                keys = torch.where(unpack(edges.survivors, edges.cols).flatten(), keys, REMOVED_KEY)
            before = _before(keys, places.to(keys.device))
            ranks += (before.double() / edges.count).tolist()
            tau, last_tied = (each[0] for each in edges.threshold())  # of the widest coat; no mask is made
            there = places.to(keys.device)
            selected += ((keys[there] > tau) | ((keys[there] == tau) & (there <= last_tied))).int().tolist()
        return {"ranks": [round(rank, 6) for rank in ranks], "selected": selected}


def histogram(edges: SearchedEdges) -> dict[str, Any]:
    """Counts of what the edges of one layer are ranked by (|score|, or the score), in equal bins from low to high."""
    scores = edges.scores.detach().float().flatten().cpu()
    values = scores.abs() if edges.rule.absolute else scores
    low, high = (0.0, float(values.max())) if edges.rule.absolute else map(float, values.aminmax())
    counts = torch.histc(values, BINS, low, high if high > low else low + 1.0)
    return {"low": low, "high": high, "counts": counts.int().tolist()}


def _before(keys: Tensor, places: Tensor) -> Tensor:
    """How many edges come before each of those at `places`: greater keys, and of equal ones the smaller indices."""
    ordered = keys.sort().values
    chosen = keys[places]
    low, high = torch.searchsorted(ordered, chosen), torch.searchsorted(ordered, chosen, right=True)
    before = len(keys) - high
    for key in chosen[high - low > 1].unique():
        tied = chosen == key
        before[tied] += torch.searchsorted((keys == key).nonzero().flatten(), places[tied])
    return before
