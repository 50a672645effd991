"""Which edges of a layer are selected: a rule turns scores into thresholds, and every path goes by thresholds.

A rule reads a score as a key (`absolute`: by its magnitude), says how many edges it selects at a rate (`counts`) and
finds the thresholds of several layers in one call (`thresholds`). Nearly every published rule is that; one whose keys
are not the scores themselves (a sampled mask, scores of blocks) makes them with `keys`, in differentiable PyTorch.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from supermask.edges.draws import kept_count
from supermask.edges.identity import Value
from supermask.kernels.base.bits import unpack
from supermask.kernels.base.keys import Threshold
from supermask.kernels.select.op import select

if TYPE_CHECKING:
    from supermask.edges.searched import SearchedEdges


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How edges are selected; a method overrides what it does in its own way. Layers of equal rules share one call.

    Attributes:
        absolute: rank edges by |score| (EP), or by the score itself (IteRand).
        fixed: it selects exactly as many edges as `counts` says, which is checked where masks are made on CPU.
        fused: its keys are the scores, so that the fused step of supermask/training/score_sgd.py may take the place of
            torch.optim.SGD; a rule that leaves it False is stepped by that, with the same result.
        together: it ranks edges of several layers against each other, so that a layer cannot select alone: only within
            `one_selection`, which gives `thresholds` all layers of the rule.

    A subclass with `keys` or `thresholds` of its own is neither fixed nor fused unless it says so itself.
    """

    absolute: bool = True

    fixed: ClassVar[bool] = False
    fused: ClassVar[bool] = False
    together: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if {"keys", "thresholds"} & vars(cls).keys():
            for promise in {"fixed", "fused"} - vars(cls).keys():
                setattr(cls, promise, False)

    def counts(self, edges: "SearchedEdges", remaining: float) -> list[int]:
        """Edges that `edges` select at a rate, by each coat from the widest; most rules have one coat."""
        return [kept_count(remaining, edges.count)]

    def keys(self, edges: "SearchedEdges") -> Tensor:
        """What thresholds are compared with: float32 of the scores' shape, a differentiable function of the scores."""
        return edges.scores

    def thresholds(self, layers: Sequence["SearchedEdges"]) -> list[Threshold]:
        """Of each layer, with an element a coat, from the widest."""
        raise NotImplementedError

    def found(self, layers: Sequence["SearchedEdges"]) -> list[Threshold]:
        """`thresholds`, looked at: one of each layer, of as many coats as the layer has.

        Raises:
            TypeError, ValueError: the rule gave something else.
        """
        found = self.thresholds(layers)
        if torch.compiler.is_compiling():
            return found
        named = f"{type(self).__name__}.thresholds"
        if not isinstance(found, list) or not all(isinstance(threshold, Threshold) for threshold in found):
            raise TypeError(f"{named} gave {found!r}: expected a list of Threshold(tau=..., last_tied=...)")
        coats = [len(edges.kept) for edges in layers]
        given = [threshold.tau.numel() for threshold in found]
        if given != coats:
            raise ValueError(f"{named} gave thresholds of {given} coats: expected, of these layers, {coats}")
        return found

    def slope(self, edges: "SearchedEdges") -> float:
        """Factor of the straight-through gradient: how much a weight grows where all thresholds are passed."""
        return 1.0

    def identity(self) -> dict[str, Value]:
        """What a state dict must agree in to be of this rule, by name: its type and fields."""
        magnitude = {"magnitude": "abs" if self.absolute else "raw"}
        if type(self) is TopKept:
            return {**magnitude}
        own = {name: value for name, value in asdict(self).items() if name != "absolute"}
        return {**magnitude, "rule": f"{type(self).__module__}.{type(self).__qualname__}({own})"}


def above(key: Tensor) -> Threshold:
    """The threshold of the edges whose key is above `key`, int32 [1]; of those that have it, none."""
    return Threshold(tau=key, last_tied=torch.full_like(key, -1, dtype=torch.int64))


@dataclass(frozen=True, kw_only=True)
class TopKept(Rule):
    """Exactly the `kept` highest of each layer, ties by index: edge-popup's."""

    fixed: ClassVar[bool] = True
    fused: ClassVar[bool] = True

    def thresholds(self, layers: Sequence["SearchedEdges"]) -> list[Threshold]:
        scores = [self.keys(edges).detach() for edges in layers]
        kept = torch.stack([edges.kept for edges in layers])
        found = select(scores, kept, [edges.survivors for edges in layers], self.absolute)
        return [Threshold(*each) for each in zip(*found, strict=True)]


@dataclass(frozen=True, kw_only=True)
class GlobalTopKept(Rule):
    """The highest of all layers together: exactly as many as their `kept` add up to, ties by layer and index.

    How many of them a layer has is what is found, and may be none, or more than its `kept`, which is its part of the
    network's rate; weights whose constant follows a rate follow that one. Layers that are pinned keep exactly their own
    highest, and are in no ranking with the others.
    """

    together: ClassVar[bool] = True

    def thresholds(self, layers: Sequence["SearchedEdges"]) -> list[Threshold]:
        ranked = [edges for edges in layers if not edges.pinned]
        kept = [edges.kept for edges in ranked]
        found = dict(zip(ranked, self.of_all(ranked, torch.stack(kept).sum(0)), strict=True)) if ranked else {}
        alone = TopKept(absolute=self.absolute)
        if pinned := [edges for edges in layers if edges.pinned]:
            found |= dict(zip(pinned, alone.thresholds(pinned), strict=True))
        return [found[edges] for edges in layers]

    def of_all(self, layers: Sequence["SearchedEdges"], kept: Tensor) -> list[Threshold]:
        """Of each layer, where so many edges of all of them are selected: int64 [coats]."""
        every = torch.cat([self._ranked(edges).flatten() for edges in layers])
        tau, last = select([every[None]], kept[None], [None], False)
        starts = [0, *accumulate(edges.count for edges in layers)][:-1]
        return [Threshold(tau[0], last[0] - start) for start in starts]

    def _ranked(self, edges: "SearchedEdges") -> Tensor:
        """Keys of a layer, those of edges that hard pruning removed below all others."""
        keys = self.keys(edges).detach()
        keys = keys.abs() if self.absolute else keys
        if edges.survivors is None:
            return keys
        removed = -1.0 if self.absolute else -torch.inf
        return torch.where(unpack(edges.survivors, edges.cols).view(edges.shape).bool(), keys, removed)
