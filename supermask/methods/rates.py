"""The rates of an iteration, from a number of cycles."""

from dataclasses import dataclass

from supermask.edges.draws import kept_count
from supermask.methods.cycles import down_to, shrinking


@dataclass(frozen=True, kw_only=True)
class Rates:
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
