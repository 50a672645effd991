"""Iterative edge-popup: the family of the paper's Table 3."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from supermask.methods.cycles import Cycle, LearningRate, Scores, Space, Unselected, check_cycles
from supermask.methods.rates import Rates, Searching


def hard_iep(rates: Sequence[float]) -> tuple[Cycle, ...]:
    """Hard iEP with learning-rate rewinding (LR): each cycle removes for good what it does not select."""
    return _iterate(rates, scores="inherit", space="survivors")


def hard_iep_ft(rates: Sequence[float]) -> tuple[Cycle, ...]:
    """Hard iEP with fine-tuning (FT): scores are inherited, the learning rate stays at its last value."""
    return _iterate(rates, scores="inherit", lr="final", space="survivors")


def hard_iep_srw(rates: Sequence[float]) -> tuple[Cycle, ...]:
    """Hard iEP with score rewinding (SRw): survivors start again from their initial scores."""
    return _iterate(rates, scores="initial", space="survivors")


def hard_iep_sri(rates: Sequence[float]) -> tuple[Cycle, ...]:
    """Hard iEP with score re-initialisation (SRi): survivors start again from a fresh draw."""
    return _iterate(rates, scores="fresh", space="survivors")


def soft_iep(rates: Sequence[float]) -> tuple[Cycle, ...]:
    """Soft iEP with learning-rate rewinding (LR): scores are inherited, and every edge can come back."""
    return _iterate(rates, scores="inherit", space="all")


def soft_iep_ft(rates: Sequence[float]) -> tuple[Cycle, ...]:
    """Soft iEP with fine-tuning (FT): scores are inherited, the learning rate stays at its last value."""
    return _iterate(rates, scores="inherit", lr="final", space="all")


def soft_iep_zero(rates: Sequence[float]) -> tuple[Cycle, ...]:
    """Soft iEP with zero init: inherited scores, those of unselected edges set to zero between cycles."""
    return _iterate(rates, scores="inherit", space="all", unselected="zero")


def soft_iep_srw_zero(rates: Sequence[float]) -> tuple[Cycle, ...]:
    """Soft iEP with score rewinding and zero init: initial scores where the last mask selects, zero elsewhere."""
    return _iterate(rates, scores="initial", space="all", unselected="zero")


@dataclass(frozen=True, kw_only=True, repr=False)
class IEP(Rates, Searching):
    """Iterative edge-popup: edge-popup at the first rate, then cycles of one kind; soft iEP unless told otherwise.

    Attributes:
        scores: what a cycle starts from: the scores it can `inherit`, the `initial` ones, or a `fresh` draw.
        lr: whether the learning rate rewinds in each cycle or stays at its `final` value.
        space: whether `all` edges can come back (soft) or only `survivors` of the last mask are searched (hard).
        unselected: whether edges that the last mask does not select `keep` their scores or begin at `zero`.
        length: how many times the schedule's epochs each cycle takes.
    """

    paper: ClassVar[str] = "soft iEP, Table 3"

    scores: Scores = "inherit"
    lr: LearningRate = "rewind"
    space: Space = "all"
    unselected: Unselected = "keep"
    length: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.phases()  # refuses what is out of range

    def phases(self) -> tuple[Cycle, ...]:
        kind: dict[str, Any] = {"scores": self.scores, "space": self.space, "unselected": self.unselected}
        cycles = _iterate(self.rates, lr=self.lr, **kind)
        return self.rated(replace(cycle, length=self.length) for cycle in cycles)


def _iterate(
    rates: Sequence[float],
    *,
    scores: Scores,
    space: Space,
    lr: LearningRate = "rewind",
    unselected: Unselected = "keep",
) -> tuple[Cycle, ...]:
    """Edge-popup at the first rate, then cycles of one kind."""
    cycles = tuple(
        Cycle(remaining=rate, scores=scores, lr=lr, space=space, unselected=unselected) if i else Cycle(remaining=rate)
        for i, rate in enumerate(rates)
    )
    check_cycles(cycles)
    return cycles
