"""Search algorithms as lists of cycles: the rows of the soft iEP paper's Table 3.

A cycle is one full optimisation at one remaining rate; what it takes over from the one before it is all that
distinguishes edge-popup, hard iEP and soft iEP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal

from supermask.checks import check_choice, hold_numbers
from supermask.edges.draws import kept_count
from supermask.later import LATER
from supermask.networks.allocation import UNIFORM, Allocator

Scores = Literal["initial", "inherit", "fresh"]
Unselected = Literal["keep", "zero"]
LearningRate = Literal["rewind", "final"]
Space = Literal["all", "survivors"]
Anneal = Literal["none", "linear", "cubic", "exponential"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Cycle:
    """One optimisation at one rate. A method whose cycles need to say more has a subclass of it.

    Attributes:
        remaining: fraction of the edges kept, absolute, in (0, 1]; None where the rule alone decides.
        scores: what the cycle starts from: the `initial` scores, the ones it can `inherit`, or a `fresh` draw
            (generation i - 1 in cycle i, so that no two cycles of a run draw the same).
        lr: `rewind` runs the schedule again with fresh momentum; `final` stays at the last rate applied in the cycle
            before, momentum kept.
        space: `all` edges can be selected, or only the `survivors`: those the last mask selected (hard pruning).
        length: how many times the schedule's epochs the cycle takes.
        unselected: whether edges that the last mask does not select `keep` these scores or begin at `zero`.
        rewind_to: the epoch of the schedule, from 0, that the cycle begins with, and the batches are again those that
            the run took from that epoch on (learning-rate rewinding, Renda et al. 2020, from that epoch). What is
            trained stays as `scores` and the method leave it: rewinding weights, as IMP does, is the method's. None
            goes through all of the schedule with the batches that are next.
        allocate: how many of the edges kept each layer gets.
        anneal: whether the rate goes down to `remaining` within the cycle, epoch by epoch: `linear`, `cubic` (Zhu and
            Gupta 2017) or `exponential`, by equal factors. The first step selects at `anneal_from`, so the dying ratio
            begins at 1 - anneal_from: from 1 it is 0 by construction, and is not to be set beside that of a cycle that
            is not annealed.
        anneal_from: the rate that it comes down from, that of the first epoch.
        anneal_epochs: how many epochs are above `remaining`; by default half of the cycle's.
    """

    remaining: float | None
    scores: Scores = "initial"
    lr: LearningRate = "rewind"
    space: Space = "all"
    length: int = 1
    unselected: Unselected = "keep"
    rewind_to: int | None = field(default=None, metadata=LATER)
    allocate: Allocator = field(default=UNIFORM, metadata=LATER)
    anneal: Anneal = field(default="none", metadata=LATER)
    anneal_from: float = field(default=1.0, metadata=LATER)
    anneal_epochs: int | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        hold_numbers(self)
        if self.remaining is not None:
            kept_count(self.remaining, 1)
        if self.scores in _ZEROED:
            raise ValueError(f"scores={self.scores!r}: write scores={_ZEROED[self.scores]!r}, unselected='zero'")
        check_choice("scores", self.scores, Scores)
        check_choice("unselected", self.unselected, Unselected)
        check_choice("lr", self.lr, LearningRate)
        check_choice("space", self.space, Space)
        if self.length < 0:
            raise ValueError(f"length={self.length}: expected how often a cycle takes the schedule's epochs, from 0 up")
        self._check_annealing()
        if self.rewind_to is not None and (self.rewind_to < 0 or self.lr == "final"):
            raise ValueError(
                f"rewind_to={self.rewind_to} with lr={self.lr!r}: expected an epoch of the schedule, from 0, and "
                "lr='rewind'"
            )

    def _check_annealing(self) -> None:
        check_choice("anneal", self.anneal, Anneal)
        kept_count(self.anneal_from, 1)
        if self.anneal == "none":
            if (self.anneal_from, self.anneal_epochs) != (1.0, None):
                raise ValueError(
                    f"anneal_from={self.anneal_from} and anneal_epochs={self.anneal_epochs} with anneal='none', which "
                    "reads neither: choose how, or leave them out"
                )
        elif self.remaining is None or self.anneal_from < self.remaining:
            raise ValueError(f"anneal_from={self.anneal_from}: expected a rate from remaining={self.remaining} up")
        elif not self.length:
            raise ValueError(f"anneal={self.anneal!r} with length=0: no epoch would read it; leave it 'none'")
        if self.anneal_epochs is not None and self.anneal_epochs < 1:
            raise ValueError(f"anneal_epochs={self.anneal_epochs}: expected at least one epoch above remaining")

    def rate(self, epoch: int, epochs: int) -> float | None:
        """Fraction of the edges kept in epoch `epoch`, from 0, of that many; None where the rule alone decides.

        Raises:
            ValueError: as many epochs are to be above `remaining` as there are.
        """
        if self.anneal == "none" or self.remaining is None:
            return self.remaining
        above = max(1, epochs // 2) if self.anneal_epochs is None else self.anneal_epochs
        if above >= epochs:
            raise ValueError(
                f"anneal_epochs={above}: the cycle has {epochs} epochs, of which one at least is at its own rate; "
                "train it for more of them"
            )
        if epoch >= above:
            return self.remaining
        left = 1 - epoch / above
        if self.anneal == "exponential":
            rate = self.remaining * (self.anneal_from / self.remaining) ** left
        else:
            rate = self.remaining + (self.anneal_from - self.remaining) * left ** (3 if self.anneal == "cubic" else 1)
        # Rounded upwards it could ask for an edge more than hard pruning left.
        return min(max(rate, self.remaining), self.anneal_from)

    def epochs(self, schedule: int) -> int:
        """How many epochs the cycle takes of a schedule of that many.

        Raises:
            ValueError: it rewinds to an epoch that the schedule does not have.
        """
        whole = schedule * self.length
        if self.rewind_to is None:
            return whole
        if self.rewind_to >= whole:
            raise ValueError(f"rewind_to={self.rewind_to}: the cycle's schedule has epochs 0 to {whole - 1}")
        return whole - self.rewind_to

    @property
    def start(self) -> str:
        """What the cycle starts from, in a word: its `scores`, `_masked` where unselected edges begin at zero."""
        return f"{self.scores}_masked" if self.unselected == "zero" else self.scores

    def __repr__(self) -> str:
        """Without what came later and is as it was: grids name the folders of their runs after this text."""
        usual = {"unselected": "keep"} | {one.name: one.default for one in fields(self) if "later" in one.metadata}
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        shown = [f"{name}={value!r}" for name, value in values.items() if name not in usual or usual[name] != value]
        return f"{type(self).__name__}({', '.join(shown)})"


_ZEROED = {"inherit_masked": "inherit", "initial_masked": "initial"}  # as run folders of older releases have it


def cycle_fields(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Cycle`, of what the run folder of any release holds of one."""
    scores = stored.get("scores")
    if scores in _ZEROED:
        return {**stored, "scores": _ZEROED[scores], "unselected": "zero"}
    return {"unselected": "keep", **stored}


def check_cycles(cycles: Sequence[Cycle]) -> None:
    """Refuse a list of cycles that cannot run or silently is another algorithm.

    Raises:
        ValueError: with the cycle and the reason.
    """
    if not cycles:
        raise ValueError("no cycle: a search has at least one")
    first = cycles[0]
    if (first.start, first.lr, first.space, first.rewind_to) != ("initial", "rewind", "all", None):
        raise ValueError(
            f"cycle 1 is {first}: it has no cycle before it, so it starts from initial, rewind and all, with the first "
            "epoch of the schedule"
        )
    for number, (before, cycle) in enumerate(pairwise(cycles), start=2):
        if reason := _degenerate(cycle):
            raise ValueError(f"cycle {number} {reason}")
        now, left = cycle.remaining, before.remaining
        if cycle.space == "survivors" and now is not None and left is not None and now > left:
            raise ValueError(
                f"cycle {number} keeps {now:.4g} of the edges, but hard pruning leaves the {left:.4g} of cycle "
                f"{number - 1}: rates of hard pruning go down"
            )


def shrinking(p: float, cycles: int) -> tuple[float, ...]:
    """Rates (1 - p)^i for i = 1..cycles: the shrinkage rate p of the soft iEP paper, section 4.1."""
    if not 0 < p < 1:
        raise ValueError(f"p={p}: the shrinkage rate is the fraction of edges dropped a cycle, between 0 and 1")
    return tuple((1 - p) ** i for i in range(1, _count(cycles) + 1))


def down_to(final: float, cycles: int) -> tuple[float, ...]:
    """Rates final^(i / cycles) for i = 1..cycles: equal steps down to `final`, as on ImageNet in the soft iEP paper."""
    kept_count(final, 1)
    return tuple(final ** (i / cycles) for i in range(1, _count(cycles) + 1))


def _degenerate(cycle: Cycle) -> str | None:
    """Why a later cycle is another algorithm than its fields say; None where it is not."""
    rate = "what it finds" if cycle.remaining is None else f"{cycle.remaining:.4g}"
    if cycle.space == "all" and cycle.scores != "inherit" and cycle.unselected == "keep":
        start = "the initial scores" if cycle.scores == "initial" else "a fresh draw"
        return (
            f"starts from {start} over all edges, which is plain EP at remaining={rate} and forgets the cycles before "
            f"it: run ep({rate})" + (" with other seeds" if cycle.scores == "fresh" else "")
        )
    if cycle.space == "survivors" and cycle.unselected == "zero":
        return (
            "has unselected='zero' with space='survivors': edges that were not selected are removed, so zeros for them "
            "change nothing; leave unselected='keep'"
        )
    if cycle.lr == "final" and cycle.scores != "inherit":
        return (
            f"has lr='final' with scores={cycle.scores!r}: fine-tuning keeps the momentum of the scores it goes on "
            "from, and these begin anew; write lr='rewind'"
        )
    return None


def _count(cycles: int) -> int:
    if cycles < 1:
        raise ValueError(f"cycles={cycles}: expected at least one")
    return cycles
