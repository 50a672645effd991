"""What a run says of itself: each record once, for whoever writes it and whoever reads it.

A record is a line of a JSON file, or an object in one. Its fields alone say how it is written and what is accepted when
it is read: a field that holds its default is left out, and what no field is called is passed over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, ClassVar, Self, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from supermask.checks import SupermaskError

CONFIG, METRICS, RANKS, TIMES, SUMMARY = "config.json", "metrics.jsonl", "ranks.jsonl", "times.jsonl", "summary.json"
"""Files of a run folder."""
UNTOLD = "untold.json"
"""Names the trackers that were not told all of a run that ended; there as long as there are any."""


class RunReadError(SupermaskError, ValueError):
    """A path that is no run folder, or a damaged file in one; the message names the file and, where it has one, the
    line."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What all records share: their way into JSON's own types and back."""

    event: ClassVar[str] = ""
    """What a line with this record calls it."""

    def to_event(self) -> dict[str, Any]:
        """As an object of JSON's own types; records within it have no name."""
        return ({"event": self.event} if self.event else {}) | _held(self)

    @classmethod
    def from_event(cls, event: Mapping[str, Any], where: str) -> Self:
        """The record that `to_event` made `event` of.

        Args:
            where: file and line, for the message.

        Raises:
            RunReadError: a field is missing, or of another type.
        """
        values = {}
        for part in fields(cls):
            key = _key(part)
            if key in event:
                values[part.name] = _value(part, part.type, event[key], where)
            elif _usual(part) is MISSING:
                raise RunReadError(f"{where} has no {key}: damaged, or written by another release")
        return cls(**values)


def _key(part: Field[Any]) -> str:
    name: str = part.metadata.get("key", part.name)
    return name


def _usual(part: Field[Any]) -> Any:
    """The default of a field; MISSING where it has none."""
    return part.default if part.default_factory is MISSING else part.default_factory()


def _held(record: Record) -> dict[str, Any]:
    """By key, the fields that do not hold their default."""
    values = ((part, getattr(record, part.name)) for part in fields(record))
    return {_key(part): _plain(value) for part, value in values if value != _usual(part)}


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return _held(value)
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _value(part: Field[Any], kind: Any, value: Any, where: str) -> Any:
    """`value`, from JSON, as the field `part`, or a part of it, of type `kind` holds it."""
    outer, inner = get_origin(kind), get_args(kind)
    if outer is None:
        if isinstance(kind, type) and issubclass(kind, Record) and isinstance(value, dict):
            return kind.from_event(value, where)
        if kind is Any or type(value) is kind or (kind is float and type(value) is int):
            return value
    elif outer is Mapping and isinstance(value, dict):
        return {
            name: _value(
                part, inner[1], held, f"{where} {part.metadata['of']} {name!r}" if "of" in part.metadata else where
            )
            for name, held in value.items()
        }
    elif outer is Sequence and isinstance(value, list):
        return tuple(_value(part, inner[0], held, where) for held in value)
    elif type(None) in inner:  # optional: what has a default is left out, the rest may be null
        return None if value is None and _usual(part) is MISSING else _value(part, inner[0], value, where)
    raise RunReadError(f"{where} is damaged: {_key(part)} is {value!r:.60}")


@dataclass(frozen=True, kw_only=True)
class Epoch(Record):
    """One epoch of training; epoch and step count over the whole run, from 1.

    Attributes:
        validation: accuracy on the held-out images after it; None where it was not evaluated on them.
    """

    event = "epoch"
    cycle: int
    epoch: int
    step: int
    lr: float
    loss: float
    train_accuracy: float | None
    remaining: float
    dying: float
    validation: float | None = None


@dataclass(frozen=True, kw_only=True)
class Histogram(Record):
    """Counts in bins of equal width from low to high."""

    low: float
    high: float
    counts: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class LayerRecord(Record):
    """One masked layer at the end of a cycle: its edges, those selected, those ever selected in the cycle, its scores
    (their magnitudes, where edges are ranked by magnitude)."""

    edges: int
    kept: int
    ever: int
    scores: Histogram | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation(Record):
    """Test accuracy after a cycle (0: before any), with the batch-norm statistics of training and with those of the
    final mask, and what else the method measures."""

    event = "evaluate"
    cycle: int
    accuracy: float | None
    recalibrated: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    measures_recalibrated: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CycleResult(Record):
    """What one cycle found; the ratios are those of `supermask.training.measures.Dying`.

    Dense training is one cycle with all edges kept.

    Attributes:
        cycle: number of the cycle, from 1.
        rate: fraction of the edges kept in layers that are not pinned.
        remaining: fraction kept over all masked edges, pinned layers included.
        kept, edges: of the masked layers.
        loss, train_accuracy: means over the last epoch; no accuracy where the loss has no logits, and neither where
            the cycle has no epoch.
        dying: d, never selected over all edges (hard iEP: the worst case).
        explored: k - d.
        apparent, apparent_of_all: never selected among the survivors, over the survivors and over all edges.
        dying_cumulative: d over all cycles so far.
        dead_units: units without an input, by layer.
        layers: by name; in a run folder only, and empty where the run recorded none.
        accuracy: on the test set, with the batch-norm statistics of training; None before it is evaluated.
        recalibrated: on the test set, with batch-norm statistics of the final mask.
        measures, measures_recalibrated: what else the method measures, likewise.
        validation: accuracy on the held-out images of the network that the cycle ends with, with the batch-norm
            statistics of training; None where it was not evaluated on them.
        picked: the epoch, from 1 over the whole run, whose network that is, where it was picked on these images.
    """

    event = "cycle"
    cycle: int
    rate: float
    remaining: float
    kept: int
    edges: int
    loss: float | None
    train_accuracy: float | None
    dying: float
    explored: float
    apparent: float
    apparent_of_all: float
    dying_cumulative: float
    dead_units: Mapping[str, int]
    layers: Mapping[str, LayerRecord] = field(default_factory=dict, metadata={"of": "layer"})
    accuracy: float | None = None
    recalibrated: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    measures_recalibrated: Mapping[str, float] = field(default_factory=dict)
    validation: float | None = None
    picked: int | None = None

    @property
    def dead(self) -> int:
        """Dead units of all layers."""
        return sum(self.dead_units.values())

    def evaluated(self, found: Evaluation) -> Self:
        """With what was found."""
        return replace(self, **{one.name: getattr(found, one.name) for one in fields(found) if one.name != "cycle"})


@dataclass(frozen=True, kw_only=True)
class Exported(Record):
    """A ticket that was written, loaded again and evaluated.

    Attributes:
        file: its name in the run folder.
        bytes, dense_bytes: of the file, and of the same network with float32 weights.
        accuracy: of the reloaded network on the test set; None where the method measures none.
        same_logits: the reloaded network's logits are the searched one's to the bit, on one test batch.
        measures: of the reloaded network, what else the method measures.
    """

    event = "export"
    file: str = field(metadata={"key": "path"})
    bytes: int
    dense_bytes: int
    accuracy: float | None
    same_logits: bool
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ended(Record):
    """The run came to its end."""

    event = "end"


@dataclass(frozen=True, kw_only=True)
class EpochTime(Record):
    """Duration of an epoch, and the share of it, in 0 to 1, spent waiting for data."""

    event = "epoch"
    cycle: int
    epoch: int
    step: int
    seconds: float
    data_wait: float


@dataclass(frozen=True, kw_only=True)
class SampledEdges(Record):
    """Whose ranks a run records: layer names, and (index in them, flat index in the layer) of each edge."""

    event = "edges"
    layers: Sequence[str]
    edges: Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class EdgeRanks(Record):
    """Of each sampled edge its rank in its layer, in [0, 1), and 1 where it is selected; epoch 0 is before the first
    step."""

    event = "ranks"
    cycle: int
    epoch: int
    ranks: Sequence[float]
    selected: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class RunSummary(Record):
    """A run in short, so that many can be listed.

    Attributes:
        name: of the recipe.
        seed: of the run.
        finished: the run came to its end.
        settings: the recipe as the run was begun with it, without name and run options.
        cycles: what each found, without its layers.
        tickets: exported.
        seconds: duration of the timed epochs.
    """

    name: str
    seed: int
    finished: bool
    settings: Mapping[str, Any]
    cycles: Sequence[CycleResult]
    tickets: Sequence[Exported]
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranks:
    """Ranks of sampled edges among their layer's, before the first step and after every epoch.

    Attributes:
        layers: names.
        edges: (index in `layers`, flat index in the layer) of each sampled edge.
        cycles, epochs: of each row of the arrays; epoch 0 is before the first step.
        ranks: float [rows, edges], in [0, 1), 0 for the highest-ranked edge of a layer.
        selected: bool [rows, edges].
    """

    layers: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    cycles: tuple[int, ...]
    epochs: tuple[int, ...]
    ranks: NDArray[np.float64]
    selected: NDArray[np.bool_]
