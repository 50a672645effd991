"""The edges of a search: a learned score an edge, of which the best are selected."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from supermask.checks import check_choice
from supermask.edges.base import Edges
from supermask.edges.draws import Magnitude, ScoreInit, WeightInit, initial_scores, kept_count, weight_constant
from supermask.edges.identity import Value
from supermask.edges.stored import NotStorable, Stored
from supermask.kernels.base.bits import count_bits, popcount, words_per_row
from supermask.kernels.base.keys import Threshold
from supermask.kernels.select.op import select
from supermask.kernels.subnet.op import subnet


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What a layer's forward goes by.

    Attributes:
        threshold: selected beforehand, of these very scores; None selects at each forward.
        straight_through: whether the gradient of the scores is that of the scores, or (False) still that of the
            effective weights, for an optimiser that completes it (supermask/training/score_sgd.py).
    """

    threshold: Threshold | None = None
    straight_through: bool = True


BY_ITSELF = Selection()


class SearchedEdges(Edges):
    """One learned score an edge; the highest `remaining` of them are selected at every forward (edge-popup).

    Ramanujan et al. 2020, "What's hidden in a randomly weighted neural network?", section 3. The scores are the only
    parameter. The mask is a function of (scores, kept, survivors) and is made again at each forward.

    Args:
        shape: of the weight, [out, ...].
        seed: 64 bits, of the weights and of the initial scores.
        layer: index of the layer, so that layers of one seed draw differently.
        remaining: fraction of the edges selected, in (0, 1].
        weights, scores: distributions of theta0 and of the initial scores.
        magnitude: rank edges by |score| ("abs", EP) or by the score ("raw", IteRand).
        pinned: keep this rate when the whole network's changes (`set_remaining`).

    Raises:
        ValueError: a seed of more than 64 bits, a rate outside (0, 1], an unknown name, an empty shape.
    """

    kept: Tensor
    survivors: Tensor | None
    ever: Tensor | None

    def __init__(
        self,
        shape: Sequence[int],
        *,
        seed: int,
        layer: int = 0,
        remaining: float = 0.5,
        weights: WeightInit = "signed_constant",
        scores: ScoreInit = "kaiming_uniform",
        magnitude: Magnitude = "abs",
        pinned: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        check_choice("scores", scores, ScoreInit)
        check_choice("magnitude", magnitude, Magnitude)
        super().__init__(shape, seed=seed, layer=layer, generation=0, weights=weights, constant=math.nan, device=device)
        self.score_init: ScoreInit = scores
        self.magnitude: Magnitude = magnitude
        self.pinned = pinned
        self.scores = nn.Parameter(torch.empty(self.shape, device=device))
        self.register_buffer("kept", torch.empty(1, dtype=torch.int64, device=device))
        self.register_buffer("survivors", None)
        self.register_buffer("ever", None, persistent=False)
        self._selection = BY_ITSELF
        self._keep_source()
        self.remaining = remaining
        self.draw_scores()
        self._keep()

    @property
    def remaining(self) -> float:
        """Fraction of the edges kept, exactly: kept / edges. Setting it chooses kept = max(1, round(rate * edges))."""
        return int(self.kept) / self.count

    @remaining.setter
    def remaining(self, rate: float) -> None:
        kept = self.check_remaining(rate)
        self.kept.fill_(kept)
        self.constant.fill_(weight_constant(self.weights, self.cols, kept / self.count))

    def check_remaining(self, rate: float) -> int:
        """The edges kept at `rate`.

        Raises:
            ValueError: a rate outside (0, 1], or more edges than hard pruning left.
        """
        kept = kept_count(rate, self.count)
        if self.survivors is not None and kept > (left := int(popcount(self.survivors).sum())):
            raise ValueError(
                f"remaining={rate} keeps {kept} of {self.count} edges, but hard pruning left {left}: lower the rate, "
                "or give the edges back with survivors = None"
            )
        return kept

    @torch.no_grad()
    def draw_scores(self, generation: int = 0) -> None:
        """Set the scores to the initial draw, or to a fresh one (generation 1, 2, ...), from the seed."""
        place = self.seed, self.layer, self.rows, self.cols
        drawn = initial_scores(self.score_init, *place, generation=generation, device=self.scores.device)
        self.scores.copy_(drawn.view(self.shape))

    @torch.no_grad()
    def remove_unselected(self) -> None:
        """Hard pruning: only the edges selected at this moment stay in the search space."""
        self.survivors = self.mask()

    @property
    def selection(self) -> Selection:
        """What forwards go by at this moment."""
        return self._selection

    def select_by(self, selection: Selection) -> None:
        """Have forwards go by `selection`; for `one_selection`, which gives it back and guards what it is of."""
        self._selection = selection

    def threshold(self) -> Threshold:
        """The threshold of the selection."""
        known = self._selection.threshold
        if known is not None:
            return known
        return select([self.scores.detach()], self.kept, [self.survivors], self.magnitude == "abs")

    def forward(self, dtype: torch.dtype = torch.float32, *, record: bool = True) -> Tensor:
        return self._subnet(dtype, self.ever if record and self.training else None)[0]

    @torch.no_grad()
    def mask(self) -> Tensor:
        return self._subnet(torch.float32, None)[1]

    @torch.no_grad()
    def stored(self) -> Stored:
        self.check_made()
        if torch.isnan(self.scores).any():
            raise NotStorable("scores are NaN, so its mask means nothing: the search broke down")
        return Stored(planes={"mask": self.mask()}, values={"constant": float(self.constant)})

    def _made_constant(self) -> float:
        return weight_constant(self.weights, self.cols, self.remaining)

    def _subnet(self, dtype: torch.dtype, ever: Tensor | None) -> tuple[Tensor, Tensor]:
        weight, mask = subnet(
            self.scores,
            self.threshold(),
            self.theta(),
            survivors=self.survivors,
            absolute=self.magnitude == "abs",
            dtype=dtype,
            ever=ever,
            straight_through=self._selection.straight_through,
        )
        if mask.device.type == "cpu" and not torch.compiler.is_compiling() and type(mask) is Tensor:
            self._check_count(mask)
        return weight, mask

    def _check_count(self, mask: Tensor) -> None:
        """A threshold selects the highest edges, so a mask with the right number of them is the right mask."""
        count, kept = count_bits(mask), int(self.kept)
        if count != kept and (self.survivors is None or count != min(kept, int(popcount(self.survivors).sum()))):
            raise RuntimeError(
                f"{count} edges selected where {kept} are kept: the scores were written to since they were selected "
                "from, in a way torch does not count (.data, NumPy); write through tensor operations under "
                "torch.no_grad()"
            )

    def _identity(self) -> dict[str, Value]:
        return super()._identity() | {"magnitude": self.magnitude}

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Mapping[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        kept, survivors = state_dict.get(prefix + "kept"), state_dict.get(prefix + "survivors")
        shape = self.rows, words_per_row(self.cols)
        if kept is not None and not 1 <= int(kept) <= self.count:
            error_msgs.append(f"{prefix}kept is {int(kept)}: the layer has {self.count} edges")
        elif survivors is not None and survivors.shape != shape:
            error_msgs.append(f"{prefix}survivors have shape {tuple(survivors.shape)}: expected {shape}")
        else:
            before, told = self.survivors, len(error_msgs)
            if prefix + "scores" in state_dict:  # a dict without this layer leaves its search space alone
                self.survivors = None if survivors is None else torch.empty_like(survivors, device=self.scores.device)
            super()._load_from_state_dict(
                state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
            )
            if len(error_msgs) > told:
                self.survivors = before
            self.constant.fill_(weight_constant(self.weights, self.cols, self.remaining))

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: a selection made beforehand stays with the scores it is of."""
        return {**self.__dict__, "_selection": BY_ITSELF}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, remaining={self.remaining:.4g}, magnitude={self.magnitude!r}"
