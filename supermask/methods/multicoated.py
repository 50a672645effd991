"""Multicoated supermasks: several nested masks of one score tensor, whose sum is the mask."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from supermask.checks import check_choice
from supermask.edges.draws import kept_count
from supermask.edges.in_model import searched_edges
from supermask.edges.rules import TopKept
from supermask.edges.searched import SearchedEdges
from supermask.methods.cycles import Cycle
from supermask.methods.iep import IEP
from supermask.methods.method import Method

Spacing = Literal["linear", "uniform", "published"]
PUBLISHED = (0.30, 0.0788, 0.0315)
"""Remaining rates of the three coats of the one list that the paper's authors published."""
MOST = 64


@dataclass(frozen=True, kw_only=True)
class Coats(TopKept):
    """Several thresholds of one score: a weight counts the coats that select it.

    The straight-through gradient is that of all coats, also for an edge outside of them.
    """

    def counts(self, edges: SearchedEdges, remaining: float) -> list[int]:
        shares = edges.shares.tolist() if isinstance(edges, CoatedEdges) and edges.shares is not None else [1.0]
        return [kept_count(remaining * share, edges.count) for share in shares]

    def slope(self, edges: SearchedEdges) -> float:
        return float(len(edges.kept))


class CoatedEdges(SearchedEdges):
    """Edges of several coats; as many as `shares` has, and one where it is None.

    Attributes:
        shares: of each coat, from the widest, the fraction of the layer's rate that it keeps: float64 [coats].
    """

    varying: ClassVar[Mapping[str, torch.dtype]] = {**SearchedEdges.varying, "shares": torch.float64}

    shares: Tensor | None

    def share(self, shares: Sequence[float], remaining: float) -> None:
        """Have a coat of each share, with the first one at the rate `remaining`."""
        self.shares = torch.tensor(shares, dtype=torch.float64, device=self.kept.device)
        self.remaining = remaining

    def _misfits(self, state_dict: Mapping[str, Any], prefix: str) -> Iterator[str]:
        yield from super()._misfits(state_dict, prefix)
        kept, shares = state_dict.get(prefix + "kept"), state_dict.get(prefix + "shares")
        coats = 1 if shares is None else shares.numel()
        if kept is not None and kept.numel() != coats:
            yield f"kept is of {kept.numel()} coats, and shares of {coats}"


@dataclass(frozen=True, kw_only=True, repr=False)
class Multicoated(IEP):
    """Multicoated supermasks: the mask is the sum of nested masks, the highest scores at several rates.

    Alone with one cycle, in soft iEP with more (Okoshi et al. 2022, "Multicoated supermasks enhance hidden networks").
    Where layers share the edges kept (`allocate`), that is of the first coat; the others keep their shares of it in
    each layer. The paper's networks train the scale and shift of batch norm, which is the conversion's norm="train";
    the default here, as for edge-popup, is to have none. The constant is that of the first coat's fan-in.

    `linear` spaces thresholds evenly: it searches one cycle with one coat first, then a coat begins at each multiple of
    that coat's threshold, in rates of the whole network. No closed form of it is published; this is this project's
    reading, and `published` the one list that is. `uniform` spaces rates evenly.

    Attributes:
        coats: how many.
        spacing: of their rates.
        shares: of each coat, from the widest, the fraction of the first one's rate that it keeps, in place of
            `spacing`.
    """

    choices: ClassVar[Mapping[str, Any]] = {
        **Method.choices, "weights": "scaled_signed_constant", "scores": "kaiming_normal_fan_out"
    }  # fmt: skip
    paper: ClassVar[str] = "Okoshi et al. 2022"

    cycles: int = 1
    final: float | None = PUBLISHED[0]
    coats: int = 3
    spacing: Spacing = "published"
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_choice("spacing", self.spacing, Spacing)
        if self.ranking != "layer":
            raise ValueError(f"ranking={self.ranking!r}: coats are nested within a layer; leave it 'layer'")
        if self.pattern is not None:
            raise ValueError(f"pattern={self.pattern}: coats have rates of their own; leave it out")
        if not isinstance(self.coats, int) or not 1 <= self.coats <= MOST:
            raise ValueError(f"coats={self.coats}: expected 1 to {MOST}")
        if self.shares:
            falls = all(0 < inner <= outer for outer, inner in zip(self.shares, self.shares[1:], strict=False))
            if self.shares[0] != 1 or not falls or len(self.shares) != self.coats:
                raise ValueError(
                    f"shares={self.shares}: expected {self.coats} fractions of the first coat's rate (coats says how "
                    "many), the first of them 1, each above 0 and at most the one before"
                )
        elif self.spacing == "published" and self.coats not in (1, len(PUBLISHED)):
            raise ValueError(
                f"coats={self.coats}: the published list has {len(PUBLISHED)}; choose spacing 'linear' or 'uniform'"
            )
        super().__post_init__()

    def phases(self) -> tuple[Cycle, ...]:
        cycles = super().phases()
        if not self._measures:
            return cycles
        # The rate before it is its own: it does not come down again.
        after = [replace(c, scores="inherit", anneal="none", anneal_from=1.0, anneal_epochs=None) for c in cycles[:1]]
        return (cycles[0], *after, *cycles[1:])

    def edges(self, shape: Sequence[int], **given: Any) -> SearchedEdges:
        chosen = {**self.choices, "remaining": self.rates[0], **given}
        if self._measures and chosen["magnitude"] != "abs":
            raise ValueError(f"magnitude={chosen['magnitude']!r}: linear coats are multiples of a magnitude, 'abs'")
        rule = Coats(absolute=chosen["magnitude"] == "abs")
        edges = CoatedEdges(shape, rule=rule, **chosen)
        if not self._measures:
            edges.share(self._shares(), chosen["remaining"])
        return edges

    def begin(self, model: nn.Module, cycle: Cycle, number: int, initial: Mapping[str, Tensor]) -> None:
        single = [edges for edges in coated(model) if edges.shares is None]
        if number > 1 and single:
            shares = linear(model, self.coats)
            for edges in single:
                edges.share(shares, edges.remaining)
        super().begin(model, cycle, number, initial)

    @property
    def _measures(self) -> bool:
        """Whether the rates of the coats come from scores."""
        return self.spacing == "linear" and not self.shares and self.coats > 1

    def _shares(self) -> tuple[float, ...]:
        if self.shares:
            return self.shares
        if self.spacing == "uniform":
            return tuple((self.coats - coat) / self.coats for coat in range(self.coats))
        return tuple(rate / PUBLISHED[0] for rate in PUBLISHED[: self.coats])


def coated(model: nn.Module) -> list[CoatedEdges]:
    """The layers of `model` that have coats."""
    return [edges for edges in searched_edges(model).values() if isinstance(edges, CoatedEdges)]


@torch.no_grad()
def linear(model: nn.Module, coats: int) -> tuple[float, ...]:
    """Shares of coats whose thresholds are 1, 2, ... `coats` times the present one of each layer, over all edges of the
    layers that are not pinned.

    Raises:
        ValueError: no layer to measure, scores that are not ranked by magnitude, or a coat without an edge.
    """
    layers = [edges for edges in searched_edges(model).values() if not edges.pinned]
    if not layers:
        raise ValueError("every layer's rate is pinned: linear coats are measured where the rate is the network's")
    if not all(edges.rule.absolute for edges in layers):
        raise ValueError("linear coats are multiples of a magnitude: convert with magnitude='abs'")
    reached = [0] * coats
    for edges in layers:
        scores = edges.scores.abs()
        tau = scores.flatten().kthvalue(edges.count - int(edges.kept[0]) + 1).values
        for coat in range(1, coats):
            reached[coat] += int((scores >= (coat + 1) * tau).sum())
        reached[0] += int(edges.kept[0])
    if not all(reached):
        raise ValueError(
            f"linear coats: {reached} edges lie above 1 to {coats} times the threshold; ask for fewer coats"
        )
    return tuple(count / reached[0] for count in reached)
