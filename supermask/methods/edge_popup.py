"""Edge-popup: one search at one rate."""

from collections.abc import Sequence
from dataclasses import dataclass

from supermask.methods.cycles import Cycle
from supermask.methods.rates import Rates, Searching


def ep(remaining: float, *, length: int = 1) -> tuple[Cycle, ...]:
    """Edge-popup (Ramanujan et al. 2020): one cycle from the initial scores, for the epochs of `length` cycles."""
    return (Cycle(remaining=remaining, length=length),)


def ep_long(rates: Sequence[float]) -> tuple[Cycle, ...]:
    """Edge-popup at the last of `rates` for the epochs of all their cycles, in one schedule: equal compute."""
    if not rates:
        raise ValueError("no rate: a search has at least one cycle")
    return ep(rates[-1], length=len(rates))


@dataclass(frozen=True, kw_only=True, repr=False)
class EP(Searching):
    """Edge-popup: the highest scores of each layer, at one rate.

    Attributes:
        remaining: fraction of the edges kept.
        length: how many times the schedule's epochs the search takes, in one schedule.
    """

    remaining: float = 0.3
    length: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.phases()  # refuses what is out of range

    def phases(self) -> tuple[Cycle, ...]:
        return self.rated(ep(self.remaining, length=self.length))


@dataclass(frozen=True, kw_only=True, repr=False)
class EPLong(Rates, Searching):
    """Edge-popup at the last rate for the epochs of all cycles, in one schedule: the compute of an iteration."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.phases()  # as above

    def phases(self) -> tuple[Cycle, ...]:
        return self.rated(ep_long(self.rates))
