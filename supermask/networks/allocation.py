"""How many edges each layer keeps, of one number for the network: uniform rates, ERK, equal counts; floors, and layers
that stay whole.

Uniform rates round a layer at a time, as edge-popup does. Every other allocation shares out the network's total,
max(1, round(remaining * edges)), by largest remainder, so that totals are exact; layers that are whole and floors are
within that total.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Rational, Real
from types import MappingProxyType
from typing import Any, Literal

from supermask.checks import check_choice, misnamed
from supermask.edges.draws import kept_count
from supermask.later import LATER, Grown
from supermask.networks.patterns import matches

Kind = Literal["uniform", "erk", "equal"]
_ELSEWHERE = dict.fromkeys(("allocate", "fractions", "proportions", "weights"), "shares")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A layer, as an allocation sees it.

    Attributes:
        weight: shape of its weight, [out, in, ...].
        outputs: output features or channels.
        room: edges that it can keep: those that hard pruning left, or all.
    """

    weight: tuple[int, ...]
    outputs: int
    room: int

    @property
    def edges(self) -> int:
        return math.prod(self.weight)


@dataclass(frozen=True, kw_only=True, repr=False)
class Allocator(Grown):
    """Shares the edges that a network keeps among its layers.

    One of your own is a subclass with `shares`; TypeError where its function has another name.

    Attributes:
        kind: what a layer gets is in proportion to `uniform`: its edges, so that all have one rate; `erk`: the sum of
            its weight's sizes, so that its rate is as sum / product of them (Erdos-Renyi for linear layers, Mocanu et
            al. 2018; with kernel sizes, Evci et al. 2020); `equal`: one, the same for all. A layer that would get more
            than it has keeps all, and the others share the rest.
        whole: layers that keep all their edges: "first", "last", names, or shell patterns, of all layers that are
            searched, as in `convert`'s overrides.
        floor: edges an output that each layer keeps at least.
    """

    kind: Kind = field(default="uniform", metadata=LATER)
    whole: tuple[str, ...] = field(default=(), metadata=LATER)
    floor: float = field(default=0.0, metadata=LATER)

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        wrong = [name for name, _ in misnamed(cls, ("shares",), _ELSEWHERE)]
        if "counts" in vars(cls) and (cls.shares, cls.by_layer) == (Allocator.shares, Allocator.by_layer):
            wrong.append("counts")
        for name in wrong:
            raise TypeError(
                f"{cls.__name__}.{name} may be meant to say what each layer gets, and nothing asks it: that is `shares`"
            )

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, Kind)
        if isinstance(self.whole, str):
            raise TypeError(f"whole={self.whole!r}: expected several names, such as ({self.whole!r},)")
        object.__setattr__(self, "whole", tuple(self.whole))
        if not (math.isfinite(self.floor) and self.floor >= 0):
            raise ValueError(f"floor={self.floor}: expected edges an output, from 0 up")

    @property
    def by_layer(self) -> bool:
        """Whether each layer's count is its own rate's, and no total is shared out."""
        return type(self).shares is Allocator.shares and (self.kind, self.whole, self.floor) == ("uniform", (), 0.0)

    def shares(self, layers: Mapping[str, Shape]) -> Sequence[float]:
        """What each layer gets, up to one factor: numbers above 0."""
        if self.kind == "equal":
            return [1] * len(layers)
        return [sum(shape.weight) if self.kind == "erk" else shape.edges for shape in layers.values()]

    def counts(
        self,
        layers: Mapping[str, Shape],
        remaining: float,
        *,
        exact: bool = False,
        pinned: Mapping[str, float | None] = MappingProxyType({}),
    ) -> dict[str, int]:
        """Edges that each of the layers keeps, at least one each.

        Args:
            layers: those that share a rate, in the network's order.
            remaining: fraction of all their edges.
            exact: share out a total also where each layer's count is its own rate's.
            pinned: every layer of the network in its order, with the rate of those that overrides pin, which are not
                among `layers`; None of the others. By default `layers` are all there are.

        Raises:
            TypeError: shares that are no numbers.
            ValueError: no such layer, one that is to be whole and is pinned at another rate, shares that are none, or a
                total that floors and whole layers do not leave room for, or that hard pruning did not leave.
        """
        if self.by_layer and not exact:
            return {name: kept_count(remaining, shape.edges) for name, shape in layers.items()}
        whole = self._whole(pinned or dict.fromkeys(layers))
        if not layers:
            return {}
        least, most = [], []
        for name, shape in layers.items():
            every = name in whole
            least.append(shape.room if every else min(shape.room, max(1, math.ceil(self.floor * shape.outputs))))
            most.append(shape.room)
        total = kept_count(remaining, sum(shape.edges for shape in layers.values()))
        if not sum(least) <= total <= sum(most):
            raise ValueError(
                f"remaining={remaining} keeps {total:,} edges: whole={self.whole} and floor={self.floor} need "
                f"{sum(least):,}, and {sum(most):,} are there; choose another rate, fewer whole layers or a lower floor"
            )
        shares = self._checked(layers)
        return dict(zip(layers, apportion(total, shares, least, most), strict=True))

    def _whole(self, pinned: Mapping[str, float | None]) -> set[str]:
        names = list(pinned)
        found: set[str] = set()
        for one in self.whole:
            matching = [name for name in names if matches(name, one, names)]
            if not matching:
                raise ValueError(f"whole={self.whole}: no layer is called {one!r}; the layers are {', '.join(names)}")
            for name in matching:
                if (rate := pinned[name]) is not None and rate != 1:
                    raise ValueError(
                        f"whole={self.whole}: {one!r} is the layer {name!r}, which overrides pin at the rate "
                        f"{rate:.4g}: leave it out of one of the two"
                    )
            found.update(matching)
        return found

    def _checked(self, layers: Mapping[str, Shape]) -> list[Fraction]:
        shares = list(self.shares(layers))
        said = f"{type(self).__name__}.shares gave {shares}: expected {len(layers)} finite numbers above 0"
        if not all(isinstance(share, Real) for share in shares):
            raise TypeError(said)
        if len(shares) != len(layers) or not all(math.isfinite(share) and share > 0 for share in shares):
            raise ValueError(said)
        # NumPy's are of Real, and no arguments of Fraction.
        return [
            Fraction(int(one.numerator), int(one.denominator)) if isinstance(one, Rational) else Fraction(float(one))
            for one in shares
        ]


UNIFORM = Allocator()


def check_ranked(allocate: Allocator) -> None:
    """Raise ValueError where an allocation is given to layers that are ranked together, and would not be heeded."""
    if not allocate.by_layer:
        raise ValueError(
            f"allocate={allocate} with ranking='network', under which layers keep what one ranking gives them: choose "
            "one of the two; layers can be pinned with overrides"
        )


def apportion(total: int, shares: Sequence[Fraction], least: Sequence[int], most: Sequence[int]) -> list[int]:
    """Whole numbers that add up to `total`, each within its bounds, as near as can be to one multiple of `shares`.

    Largest remainder: the multiple's whole parts, and one more for the largest fractions, the first of equals.

    Args:
        total: from the sum of `least` to that of `most`.
        shares: above 0.
    """
    wanted = _within(total, shares, least, most)
    found = [math.floor(share) for share in wanted]
    order = sorted(range(len(found)), key=lambda number: (found[number] - wanted[number], number))
    for number in order[: total - sum(found)]:
        found[number] += 1
    return found


def _within(total: int, shares: Sequence[Fraction], least: Sequence[int], most: Sequence[int]) -> list[Fraction]:
    """The multiple of `shares` that adds up to `total` once each is held to its bounds, exactly."""
    fixed: dict[int, Fraction] = {}
    while len(fixed) < len(shares):
        free = [number for number in range(len(shares)) if number not in fixed]
        factor = (total - sum(fixed.values())) / sum(shares[number] for number in free)
        held = {number: min(max(factor * shares[number], least[number]), most[number]) for number in free}
        over = sum(held.values()) - factor * sum(shares[number] for number in free)
        # Those that are held on the side which outweighs the other stay there, whatever becomes of the rest.
        side = {n: value for n, value in held.items() if (value - factor * shares[n]) * over > 0}
        fixed |= {n: Fraction(value) for n, value in (side if over else held).items()}
    return [fixed[number] for number in range(len(shares))]
