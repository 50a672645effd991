"""The edges of a search: a learned score an edge, of which the best are selected."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from supermask.checks import check_choice
from supermask.edges.base import Edges
from supermask.edges.draws import (
    WEIGHTS,
    Magnitude,
    ScoreInit,
    WeightInit,
    initial_scores,
    weight_constant,
)
from supermask.edges.identity import Value
from supermask.edges.rules import Rule, TopKept
from supermask.edges.stored import NotStorable, Stored, check_nested, coat_names
from supermask.kernels.base.bits import count_bits, popcount, unpack, words_per_row
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.philox import sign_words
from supermask.kernels.base.theta import Theta
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
    """One learned score an edge; a rule selects by them at every forward, edge-popup's the highest `remaining`.

    Ramanujan et al. 2020, "What's hidden in a randomly weighted neural network?", section 3. The scores are the only
    parameter. The mask is a function of (scores, kept, survivors) and is made again at each forward.

    What a method keeps of a layer lies in its buffers. Those that `varying` names may be None, or take another shape in
    the course of a search; a state dict brings its own.

    Args:
        shape: of the weight, [out, ...].
        seed: 64 bits, of the weights and of the initial scores.
        layer: index of the layer, so that layers of one seed draw differently.
        remaining: fraction of the edges selected, in (0, 1].
        weights, scores: distributions of theta0 and of the initial scores.
        magnitude: rank edges by |score| ("abs", EP) or by the score ("raw", IteRand).
        rule: which edges are selected, in place of the highest by `magnitude`.
        pinned: keep this rate when the whole network's changes (`set_remaining`).

    Attributes:
        kept: how many edges each coat selects, from the widest, int64 [coats].
        survivors: packed int32 [rows, words]: the edges that hard pruning left, or None for all.
        flips: packed int32 [rows, words]: edges whose sign is not the seed's, or None.
        base: float32 [rows, cols]: weights that are not the seed's, or None.
        ever: packed int32 [rows, words]: the edges that training forwards selected, or None to record none.

    Raises:
        ValueError: a seed of more than 64 bits, a rate outside (0, 1], an unknown name, an empty shape.
    """

    varying: ClassVar[Mapping[str, torch.dtype]] = {
        "survivors": torch.int32,
        "flips": torch.int32,
        "base": torch.float32,
    }

    exact: ClassVar[tuple[str, ...]] = ("kept", "survivors", "flips")

    kept: Tensor
    survivors: Tensor | None
    flips: Tensor | None
    base: Tensor | None
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
        rule: Rule | None = None,
        pinned: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        check_choice("scores", scores, ScoreInit)
        check_choice("magnitude", magnitude, Magnitude)
        super().__init__(shape, seed=seed, layer=layer, generation=0, weights=weights, constant=math.nan, device=device)
        self.score_init: ScoreInit = scores
        self.rule = rule or TopKept(absolute=magnitude == "abs")
        self.pinned = pinned
        self.scores = nn.Parameter(torch.empty(self.shape, device=device))
        self.register_buffer("kept", torch.empty(1, dtype=torch.int64, device=device))
        for name in self.varying:
            self.register_buffer(name, None)
        self.register_buffer("ever", None, persistent=False)
        self._selection = BY_ITSELF
        self._keep_source()
        self.remaining = remaining
        self.draw_scores()
        self._keep()
        self._know()

    @property
    def remaining(self) -> float:
        """Fraction of the edges kept, exactly: kept / edges. Setting it chooses kept = max(1, round(rate * edges)).

        Where the rule promises no number, the fraction selected at this moment.
        """
        return self.selected / self.count

    @remaining.setter
    def remaining(self, rate: float) -> None:
        counts = self.check_remaining(rate)
        if len(counts) != len(self.kept):
            self.kept = self.kept.new_empty(len(counts))
        with torch.no_grad():
            for coat, count in enumerate(counts):
                self.kept[coat].fill_(count)
        self.constant.fill_(weight_constant(self.weights, self.cols, counts[0] / self.count))
        self._know()

    def check_remaining(self, rate: float) -> list[int]:
        """The edges that each coat selects at `rate`.

        Raises:
            ValueError: a rate outside (0, 1], or more edges than hard pruning left.
        """
        counts = self.rule.counts(self, rate)
        ranked_alone = self.pinned or not self.rule.together  # otherwise it is the network that has room, or not
        if ranked_alone and self.survivors is not None and counts[0] > (left := int(popcount(self.survivors).sum())):
            raise ValueError(
                f"remaining={rate} keeps {counts[0]} of {self.count} edges, but hard pruning left {left}: lower the "
                "rate, or give the edges back with survivors = None"
            )
        return counts

    @property
    def selected(self) -> int:
        """Edges selected at this moment."""
        if self.rule.fixed:
            return int(self.kept[0])
        try:
            return count_bits(self.mask())
        except AttributeError as error:  # which a property's caller would take for that of the property
            raise RuntimeError(f"{type(self.rule).__name__} failed: {error}") from error

    @torch.no_grad()
    def draw_scores(self, generation: int = 0) -> None:
        """Set the scores to the initial draw, or to a fresh one (generation 1, 2, ...), from the seed."""
        place = self.seed, self.layer, self.shape
        drawn = initial_scores(self.score_init, *place, generation=generation, device=self.scores.device)
        self.scores.copy_(drawn.view(self.shape))

    @torch.no_grad()
    def remove_unselected(self) -> None:
        """Hard pruning: only the edges selected at this moment stay in the search space."""
        self.survivors = self.mask()

    @torch.no_grad()
    def draw_weights(self, where: Tensor, generation: int) -> None:
        """Draw the weights of some edges again, from the seed; a constant keeps its magnitude and gets another sign.

        Args:
            where: packed int32 [rows, words]: the edges.
            generation: of the draw: 1, 2, ...; the seed's own is 0.

        Raises:
            ValueError: weights without anything to draw.
        """
        place = self.seed, self.layer, self.rows, self.cols
        device = self.constant.device
        self.make_room_for_draws()
        if self.real is not None and self.base is not None:
            self.base.copy_(torch.where(unpack(where, self.cols), self._drawn(generation), self.base))
        elif self.flips is not None and self.signs is not None:
            turned = sign_words(*place, device=device) ^ sign_words(*place, generation=generation, device=device)
            turned = (turned ^ self.flips) & where
            self.flips.bitwise_xor_(turned)
            self.signs.bitwise_xor_(turned)
            self._know()

    @torch.no_grad()
    def make_room_for_draws(self) -> None:
        """Hold what `draw_weights` changes, in place from then on, as whoever captured a step has to find it.

        Raises:
            ValueError: weights without anything to draw.
        """
        if self.real is not None:
            if self.base is None:
                self.base = self._drawn()
            return
        if not WEIGHTS[self.weights].signed:
            raise ValueError(
                f"weights={self.weights!r} have no sign to draw again: convert with a signed constant or real weights"
            )
        if self.flips is None:
            words = self.rows, words_per_row(self.cols)
            self.flips = torch.zeros(words, dtype=torch.int32, device=self.constant.device)
        if self.signs is None:
            self._keep()

    @property
    def selection(self) -> Selection:
        """What forwards go by at this moment."""
        return self._selection

    def select_by(self, selection: Selection) -> None:
        """Have forwards go by `selection`; for `one_selection`, which gives it back and guards what it is of."""
        self._selection = selection

    def threshold(self) -> Threshold:
        """The threshold of the selection, an element a coat."""
        known = self._selection.threshold
        if known is not None:
            return known
        if self.rule.together:
            raise RuntimeError(
                f"{type(self.rule).__name__} ranks the edges of several layers together, and this layer was to select "
                "alone: go within `with supermask.one_selection(model)`"
            )
        return self.rule.found([self])[0]

    def theta(self) -> Theta:
        drawn = super().theta()
        return drawn if self.base is None else drawn._replace(base=self.base, real=None)

    def gradient(self) -> Theta | None:
        """The theta0 that dL/dw is multiplied by on its way to the scores; None where it is the weights' own."""
        slope = self.rule.slope(self)
        return None if slope == 1.0 else self.theta().scaled(slope)

    def forward(self, dtype: torch.dtype = torch.float32, *, record: bool = True) -> Tensor:
        if not self.training:
            self.check_exact()
        return self._subnet(dtype, self.ever if record and self.training else None)[0]

    def mask(self) -> Tensor:
        return self.coats()[0]

    @torch.no_grad()
    def coats(self) -> Tensor:
        """All coats, packed int32 [coats, rows, words], each within the one before it."""
        mask = self._subnet(torch.float32, None)[1]
        return mask if mask.ndim == 3 else mask[None]

    def agreed(self) -> list[Tensor]:
        varying = [getattr(self, name) for name in self.varying]
        return [self.coats(), self.kept, *(buffer for buffer in varying if buffer is not None)]

    @torch.no_grad()
    def stored(self) -> Stored:
        self.check_exact()
        self.check_made()
        if torch.isnan(self.scores).any():
            raise NotStorable("scores are NaN, so its mask means nothing: the search broke down")
        if self.base is not None and not torch.equal(self.base, self._drawn()):
            raise NotStorable(
                "its real-valued weights are not those of the seed: they were drawn again one by one, or given, and a "
                "ticket has no room for them; search with a signed constant, whose signs it keeps"
            )
        coats = self.coats()
        check_nested(coats)
        planes = dict(zip(coat_names(len(coats)), coats, strict=True))
        if self.flips is not None:
            planes["flips"] = self.flips & coats[0]
        return Stored(planes=planes, values={"constant": float(self.constant)})

    def _drawn(self, generation: int = 0) -> Tensor:
        """The real-valued weights that the seed makes, float32 [rows, cols]; of constants none, [0]."""
        theta = super().theta()._replace(generation=generation)
        made = theta.made(self.rows, self.cols, self.constant.device).base
        return self.constant.new_empty(0) if made is None else made

    def _flipped(self) -> Tensor | None:
        return self.flips

    def _made_constant(self) -> float:
        return weight_constant(self.weights, self.cols, int(self.kept[0]) / self.count)

    def _subnet(self, dtype: torch.dtype, ever: Tensor | None) -> tuple[Tensor, Tensor]:
        weight, mask = subnet(
            self.rule.keys(self),
            self.threshold(),
            self.theta(),
            gradient=self.gradient(),
            survivors=self.survivors,
            absolute=self.rule.absolute,
            dtype=dtype,
            ever=ever,
            straight_through=self._selection.straight_through,
        )
        if self.rule.fixed and mask.device.type == "cpu" and not torch.compiler.is_compiling() and type(mask) is Tensor:
            self._check_count(mask)
        return weight, mask

    def _check_count(self, mask: Tensor) -> None:
        """A threshold selects the highest edges, so a mask with the right number of them is the right mask."""
        for coat, kept in zip(mask if mask.ndim == 3 else [mask], self.kept.tolist(), strict=True):
            count = count_bits(coat)
            if count != kept and (self.survivors is None or count != min(kept, int(popcount(self.survivors).sum()))):
                raise RuntimeError(
                    f"{count} edges selected where {kept} are kept: the scores were written to since they were "
                    "selected from, in a way torch does not count (.data, NumPy); write through tensor operations "
                    "under torch.no_grad()"
                )

    def _identity(self) -> dict[str, Value]:
        return super()._identity() | self.rule.identity()

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Mapping[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        told = len(error_msgs)
        state_dict = self._unaveraged(state_dict, prefix, error_msgs)
        if len(error_msgs) > told:
            return
        before = {name: getattr(self, name) for name in ("kept", *self.varying)}
        values = {name: None if old is None else old.clone() for name, old in before.items()}
        if prefix + "scores" in state_dict:  # a dict without this layer leaves what varies alone
            error_msgs += [f"{prefix}{wrong}" for wrong in self._misfits(state_dict, prefix)]
            if len(error_msgs) > told:
                return
            for name, old in before.items():
                setattr(self, name, self._room(old, state_dict.get(prefix + name), required=name == "kept"))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if len(error_msgs) > told:
            for name, old in before.items():
                setattr(self, name, old if old is None else old.copy_(values[name]))
        self.constant.fill_(self._made_constant())
        self._know()

    def _room(self, old: Tensor | None, found: Tensor | None, *, required: bool) -> Tensor | None:
        """Where `found` goes: where the old one lies, if it has that shape, as a captured step reads it there."""
        if found is None:
            return old if required else None
        fits = old is not None and old.shape == found.shape
        return old if fits else torch.empty_like(found, device=self.scores.device)

    def _misfits(self, state_dict: Mapping[str, Any], prefix: str) -> Iterator[str]:
        """What of a state dict this layer cannot have."""
        kept = state_dict.get(prefix + "kept")
        if kept is not None and (kept.dtype is not torch.int64 or kept.ndim != 1 or not len(kept)):
            yield f"kept is {kept.dtype} of shape {tuple(kept.shape)}: expected torch.int64 of shape (coats,)"
        elif kept is not None and not kept.is_meta:
            counts = kept.tolist()
            if any(not 1 <= count <= self.count for count in counts) or counts != sorted(counts, reverse=True):
                found = counts[0] if len(counts) == 1 else counts
                yield f"kept is {found}: the layer has {self.count} edges, and no coat keeps more than the one before"
        words = self.rows, words_per_row(self.cols)
        for name, dtype in self.varying.items():
            found = state_dict.get(prefix + name)
            if found is None:
                continue
            shape = {torch.int32: words, torch.float32: (self.rows, self.cols)}.get(dtype, found.shape)
            if found.shape != shape:
                yield f"{name} have shape {tuple(found.shape)}: expected {tuple(shape)}"
            elif found.dtype is not dtype:
                yield f"{name} are {found.dtype}: expected {dtype}"

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: a selection made beforehand stays with the scores it is of."""
        return {**super().__getstate__(), "_selection": BY_ITSELF}

    def extra_repr(self) -> str:
        remaining = f"remaining={self.remaining:.4g}, " if self.rule.fixed else ""
        return f"{super().extra_repr()}, {remaining}rule={self.rule}"
