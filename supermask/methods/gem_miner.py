"""Gem-Miner: scores in [0, 1], rounded at a half, and edges frozen out as the search goes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from supermask.checks import check_choice
from supermask.data.base import Batch
from supermask.edges.draws import kept_count
from supermask.edges.in_model import searched_edges
from supermask.edges.rules import GlobalTopKept, Rule, above
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import pack, popcount
from supermask.kernels.base.keys import Threshold
from supermask.kernels.select.op import selected
from supermask.methods.cycles import Cycle
from supermask.methods.method import Method, check_unrated
from supermask.training.schedules import Rate
from supermask.training.training import Training

Counts = Literal["exact", "published"]
_HALF = 0x3F000000  # the key of 0.5, its bit pattern


@dataclass(frozen=True, kw_only=True)
class AboveHalf(Rule):
    """Edges whose score is above a half, at no fixed rate: scores in [0, 1], rounded."""

    absolute: bool = False

    def thresholds(self, layers: Sequence[SearchedEdges]) -> list[Threshold]:
        half = torch.full((1,), _HALF, dtype=torch.int32, device=layers[0].scores.device)
        return [above(half) for _ in layers]


@dataclass(frozen=True, kw_only=True, repr=False)
class GemMiner(Method):
    """Rounded scores in [0, 1], and from time to time the lowest of all layers frozen out for good.

    Sreenivasan et al. 2022, "Rare gems: finding lottery tickets at initialization". A forward selects the edges that
    are left and whose score is above a half; before every step scores are brought back to [0, 1]. Every so many epochs
    the lowest scores of those left, of all layers together, are frozen out, down to `remaining` at the last such event.
    The gradient of an edge that is left is dL/dw times its weight; of one frozen out, that of the penalty alone.

    The search's own mask is sparser than what is left. Where it ends a cycle without a step follows whose mask is all
    that is left, which the paper's low rates are of; the cycle before is of the rounded scores.

    The published code drops every edge tied with the last one that an event drops: scores that were brought back to 0
    are all tied, so that it may fall below its schedule. Here an event drops so many, ties by layer and index. Its
    fine-tuning of the weights that are left, which no ticket holds yet, is not here. It has no weight decay
    (`Training(weight_decay=0.0)`), and one event at least: more epochs than `freeze_every`.

    Attributes:
        remaining: fraction of the edges left at the end.
        length: how many times the schedule's epochs the search takes.
        freeze_every: epochs from one event to the next.
        penalty: of the sum of squared scores, in the loss. The paper tunes it for each network and rate: 1e-4 to 5e-6,
            and 0 at half of the edges.
        counts: `exact` leaves round(edges * remaining^(i / events)) after event i; `published` drops
            ceil(left * (1 - remaining^(1 / events))), which ends some edges lower.
        unflag: end with all that is left; else with the rounded scores.
    """

    choices: ClassVar[Mapping[str, Any]] = {**Method.choices, "scores": "unit_uniform", "magnitude": "raw"}
    paper: ClassVar[str] = "Sreenivasan et al. 2022"
    whole_gradients: ClassVar[bool] = True  # the penalty reads scores
    replayable: ClassVar[bool] = True

    remaining: float = 0.0144
    length: int = 1
    freeze_every: int = 5
    penalty: float = 1e-4
    counts: Counts = "exact"
    unflag: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        kept_count(self.remaining, 1)
        check_choice("counts", self.counts, Counts)
        if self.freeze_every < 1:
            raise ValueError(f"freeze_every={self.freeze_every}: expected epochs between two events, at least one")
        if self.length < 1:
            raise ValueError(f"length={self.length}: expected how often the search takes the schedule, at least once")
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise ValueError(f"penalty={self.penalty}: expected a number from 0 up")

    def phases(self) -> tuple[Cycle, ...]:
        search = Cycle(remaining=None, length=self.length)
        return (search, Cycle(remaining=None, scores="inherit", length=0)) if self.unflag else (search,)

    def edges(self, shape: Sequence[int], **given: Any) -> SearchedEdges:
        chosen = {**self.choices, **given}
        if chosen["magnitude"] != "raw":
            raise ValueError(f"magnitude={chosen['magnitude']!r}: scores lie in [0, 1] and are read as they are, 'raw'")
        check_unrated(self, chosen)
        return SearchedEdges(shape, **chosen, rule=AboveHalf())

    def schedule(self, training: Training, cycle: Cycle, last: float | None) -> Sequence[Rate]:
        epochs = cycle.epochs(training.epochs)
        if 0 < epochs <= self.freeze_every and self.remaining < 1:
            raise ValueError(
                f"freeze_every={self.freeze_every} with {epochs} epochs: no event comes before the end, so no "
                f"edge would be frozen out: give more epochs, or freeze_every={max(1, epochs - 1)} or less"
            )
        return super().schedule(training, cycle, last)

    @torch.no_grad()
    def begin(self, model: nn.Module, cycle: Cycle, number: int, initial: Mapping[str, Tensor]) -> None:
        layers = searched_edges(model).values()
        left = [edges.survivors for edges in layers]
        super().begin(model, cycle, number, initial)
        if number > 1:
            for edges, survivors in zip(layers, left, strict=True):
                edges.survivors = survivors
                edges.scores.fill_(1.0)

    @torch.no_grad()
    def begin_epoch(self, model: nn.Module, cycle: Cycle, epoch: int, epochs: int) -> None:
        event, since = divmod(epoch, self.freeze_every)
        if since or not event:
            return
        layers = list(searched_edges(model).values())
        for edges in layers:
            edges.scores.clamp_(0.0, 1.0)
        freeze_out(layers, self._left(layers, event, (epochs - 1) // self.freeze_every))

    @torch.no_grad()
    def before_step(self, model: nn.Module, step: int) -> None:
        for edges in searched_edges(model).values():
            edges.scores.clamp_(0.0, 1.0)

    def loss(
        self, model: nn.Module, network: Callable[[Tensor], Tensor], batch: Batch, label_smoothing: float
    ) -> tuple[Tensor, Tensor | None]:
        loss, logits = super().loss(model, network, batch, label_smoothing)
        if self.penalty:
            squares = [edges.scores.square().sum() for edges in searched_edges(model).values()]
            loss = loss + self.penalty * torch.stack(squares).sum()
        return loss, logits

    def _left(self, layers: Sequence[SearchedEdges], event: int, events: int) -> int:
        """How many edges event `event` of so many leaves."""
        if self.counts == "exact":
            return kept_count(self.remaining ** (event / events), sum(edges.count for edges in layers))
        left = sum(edges.count if edges.survivors is None else int(popcount(edges.survivors).sum()) for edges in layers)
        return max(1, left - math.ceil((1 - self.remaining ** (1 / events)) * left))


@torch.no_grad()
def freeze_out(layers: Sequence[SearchedEdges], left: int) -> None:
    """Leave the search space `left` edges of `layers` together: of those in it the highest scores, ties by layer and
    index."""
    kept = torch.tensor([left], device=layers[0].scores.device)
    found = GlobalTopKept(absolute=False).of_all(layers, kept)
    for edges, threshold in zip(layers, found, strict=True):
        stays = pack(selected(edges.scores, threshold, False))
        edges.survivors = stays if edges.survivors is None else stays & edges.survivors
