"""Edge-popup: one search at one rate."""

from collections.abc import Sequence

from supermask.methods.cycles import Cycle


def ep(remaining: float, *, length: int = 1) -> tuple[Cycle, ...]:
    """Edge-popup (Ramanujan et al. 2020): one cycle from the initial scores, for the epochs of `length` cycles."""
    return (Cycle(remaining=remaining, length=length),)


def ep_long(rates: Sequence[float]) -> tuple[Cycle, ...]:
    """Edge-popup at the last of `rates` for the epochs of all their cycles, in one schedule: equal compute."""
    if not rates:
        raise ValueError("no rate: a search has at least one cycle")
    return ep(rates[-1], length=len(rates))
