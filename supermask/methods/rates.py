"""The rates of an iteration, from a number of cycles, and how layers and epochs come by theirs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from supermask.checks import check_choice
from supermask.edges.draws import kept_count
from supermask.edges.pattern import NOfM
from supermask.edges.rules import GlobalTopKept, Rule, TopKept
from supermask.edges.searched import SearchedEdges
from supermask.later import LATER, Grown
from supermask.methods.cycles import Anneal, Cycle, down_to, shrinking
from supermask.methods.method import Method
from supermask.networks.allocation import UNIFORM, Allocator, check_ranked

Ranking = Literal["layer", "network"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Searching(Method):
    """A method that keeps the highest scores: of each layer, as many as an allocation gives it, or of the network.

    Attributes:
        allocate: how many of the edges kept each layer gets.
        anneal: how the rate goes down within a cycle from that of the cycle before, 1 before the first; not at all
            unless told. The dying ratio is then another measure (`Cycle.anneal`).
        anneal_epochs: how many epochs that takes; by default half of a cycle's.
        ranking: whether edges are ranked within their `layer` or, all against each other, within the `network`, whose
            rate is then exact and a layer's what is found. Layers that overrides pin keep theirs.
        pattern: (n, m) has an output keep n edges of every m inputs in a row, of a convolution's channels at each
            position of the kernel: 2:4 and 4:8, at the rate n / m. Layers that overrides pin are in no pattern.
    """

    allocate: Allocator = field(default=UNIFORM, metadata=LATER, repr=False)  # cycles say it, as the next two
    anneal: Anneal = field(default="none", metadata=LATER, repr=False)
    anneal_epochs: int | None = field(default=None, metadata=LATER, repr=False)
    ranking: Ranking = field(default="layer", metadata=LATER)
    pattern: tuple[int, int] | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("ranking", self.ranking, Ranking)
        check_choice("anneal", self.anneal, Anneal)
        if not isinstance(self.allocate, Allocator):
            raise TypeError(f"allocate={self.allocate!r}: expected an Allocator, such as Allocator(kind='erk')")
        if self.ranking == "network":
            check_ranked(self.allocate)
        self._check_pattern()
        if self.anneal == "none" and self.anneal_epochs is not None:
            raise ValueError(
                f"anneal_epochs={self.anneal_epochs} with anneal='none', which does not read it: choose how"
            )

    def _check_pattern(self) -> None:
        if self.pattern is None:
            return
        if len(self.pattern) != 2:
            raise ValueError(f"pattern={self.pattern}: expected two integers, n of m: (2, 4)")
        n, m = self.pattern
        NOfM(n=n, m=m)
        others = {"ranking": "layer", "anneal": "none", "allocate": UNIFORM}
        if differ := [name for name, plain in others.items() if getattr(self, name) != plain]:
            raise ValueError(f"pattern={self.pattern} with another {' and '.join(differ)}: it gives every layer n / m")

    def edges(self, shape: Sequence[int], **given: Any) -> SearchedEdges:
        if self.ranking == "layer" and self.pattern is None:
            return super().edges(shape, **given)
        chosen = {**self.choices, **given}
        return super().edges(shape, **chosen, rule=self._rule(chosen))

    def _rule(self, chosen: Mapping[str, Any]) -> Rule:
        absolute = chosen["magnitude"] == "abs"
        if self.pattern is not None and not chosen.get("pinned"):
            return NOfM(rank=absolute, n=self.pattern[0], m=self.pattern[1])
        return TopKept(absolute=absolute) if self.ranking == "layer" else GlobalTopKept(absolute=absolute)

    def settings(self) -> dict[str, Any]:
        plain = self.ranking == "layer" and self.pattern is None and self.is_phases(Searching)
        return {} if plain else super().settings()

    def rated(self, cycles: Iterable[Cycle]) -> tuple[Cycle, ...]:
        """`cycles` with this allocation, annealed where that is asked for.

        Raises:
            ValueError: annealing that no epoch would read, or to rates that rise; rates that are not the pattern's.
        """
        shared = [replace(cycle, allocate=self.allocate) for cycle in cycles]
        if self.pattern is not None:
            rule = NOfM(n=self.pattern[0], m=self.pattern[1])
            for cycle in shared:
                if cycle.remaining is not None:
                    rule.check(cycle.remaining)
        if self.anneal == "none":
            return tuple(shared)
        if not any(cycle.length for cycle in shared):
            raise ValueError(f"anneal={self.anneal!r}: no cycle has an epoch that would read it; leave it 'none'")
        befores = [1.0, *(cycle.remaining for cycle in shared)]
        for number, (before, cycle) in enumerate(zip(befores, shared, strict=False), start=1):
            if before is not None and cycle.remaining is not None and cycle.length and before < cycle.remaining:
                raise ValueError(
                    f"anneal={self.anneal!r} with rates that rise: cycle {number} keeps {cycle.remaining:.4g} of the "
                    f"edges, and cycle {number - 1} keeps {before:.4g}; give rates that fall, or leave anneal='none'"
                )
        return tuple(
            replace(cycle, anneal=self.anneal, anneal_from=before, anneal_epochs=self.anneal_epochs)
            if before is not None and cycle.remaining is not None and cycle.length
            else cycle
            for before, cycle in zip(befores, shared, strict=False)
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class Rates(Grown):
    """Rates that fall from cycle to cycle.

    Attributes:
        cycles: how many.
        p: fraction of the edges dropped a cycle: remaining is (1 - p)^i in cycle i; 0.2 where no `final` is given.
        final: fraction of the edges kept in the last cycle: remaining is final^(i / cycles) in cycle i.
        given: the rates themselves, in place of all that.
    """

    cycles: int = 15
    p: float | None = None
    final: float | None = None
    given: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p is not None and self.final is not None:
            raise ValueError(
                f"p={self.p} and final={self.final}: either says what the rates are; leave one of them None"
            )
        for rate in self.rates:
            kept_count(rate, 1)

    @property
    def rates(self) -> tuple[float, ...]:
        """Of each cycle."""
        if self.given:
            return self.given
        if self.final is not None:
            return down_to(self.final, self.cycles)
        return shrinking(0.2 if self.p is None else self.p, self.cycles)
