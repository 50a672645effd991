"""Search algorithms as lists of cycles: the rows of the soft iEP paper's Table 3.

A cycle is one full optimisation at one remaining rate; what it takes over from the one before it is all that
distinguishes edge-popup, hard iEP and soft iEP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Literal

from supermask.checks import check_choice
from supermask.edges.draws import kept_count

Scores = Literal["initial", "inherit", "fresh"]
Unselected = Literal["keep", "zero"]
LearningRate = Literal["rewind", "final"]
Space = Literal["all", "survivors"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Cycle:
    """One optimisation at one rate.

    Attributes:
        remaining: fraction of the edges kept, absolute, in (0, 1]; None where the rule alone decides.
        scores: what the cycle starts from: the `initial` scores, the ones it can `inherit`, or a `fresh` draw
            (generation i - 1 in cycle i, so that no two cycles of a run draw the same).
        lr: `rewind` runs the schedule again with fresh momentum; `final` stays at the last rate applied in the cycle
            before, momentum kept.
        space: `all` edges can be selected, or only the `survivors`: those the last mask selected (hard pruning).
        length: how many times the schedule's epochs the cycle takes.
        unselected: whether edges that the last mask does not select `keep` these scores or begin at `zero`.
    """

    remaining: float | None
    scores: Scores = "initial"
    lr: LearningRate = "rewind"
    space: Space = "all"
    length: int = 1
    unselected: Unselected = "keep"

    def __post_init__(self) -> None:
        if self.remaining is not None:
            kept_count(self.remaining, 1)
        if self.scores in _ZEROED:
            raise ValueError(f"scores={self.scores!r}: write scores={_ZEROED[self.scores]!r}, unselected='zero'")
        check_choice("scores", self.scores, Scores)
        check_choice("unselected", self.unselected, Unselected)
        check_choice("lr", self.lr, LearningRate)
        check_choice("space", self.space, Space)
        if self.length < 1:
            raise ValueError(f"length={self.length}: a cycle takes the schedule's epochs at least once")

    @property
    def start(self) -> str:
        """What the cycle starts from, in a word: its `scores`, `_masked` where unselected edges begin at zero."""
        return f"{self.scores}_masked" if self.unselected == "zero" else self.scores

    def __repr__(self) -> str:
        """Without `unselected` where it is `keep`: grids name the folders of their runs after this text."""
        shown = [field.name for field in fields(self) if (field.name, self.unselected) != ("unselected", "keep")]
        return f"Cycle({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


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
    if (first.start, first.lr, first.space) != ("initial", "rewind", "all"):
        raise ValueError(f"cycle 1 is {first}: it has no cycle before it, so it starts from initial, rewind and all")
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
