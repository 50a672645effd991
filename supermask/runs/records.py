"""What a run says of itself: each record once, for whoever writes it and whoever reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of training; epoch and step count over the whole run, from 1."""

    cycle: int
    epoch: int
    step: int
    lr: float
    loss: float
    train_accuracy: float
    remaining: float
    dying: float


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts in bins of equal width from low to high."""

    low: float
    high: float
    counts: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """One masked layer at the end of a cycle: its edges, those selected, those ever selected in the cycle, its scores
    (their magnitudes, where edges are ranked by magnitude)."""

    edges: int
    kept: int
    ever: int
    scores: Histogram | None = None


@dataclass(frozen=True, kw_only=True)
class CycleRecord:
    """What one cycle found, with its evaluation; the ratios are those of `supermask.measures.Dying`.

    Attributes:
        rate: fraction kept in layers that are not pinned; remaining: over all masked edges.
        dead_units, layers: by layer name; empty where the run recorded none.
        accuracy, recalibrated: on the test set, with the batch-norm statistics of training and of the final mask.
    """

    cycle: int
    rate: float
    remaining: float
    kept: int
    edges: int
    loss: float
    train_accuracy: float
    dying: float
    explored: float
    apparent: float
    apparent_of_all: float
    dying_cumulative: float
    dead_units: Mapping[str, int] = field(default_factory=dict)
    layers: Mapping[str, LayerRecord] = field(default_factory=dict)
    accuracy: float | None = None
    recalibrated: float | None = None

    @property
    def dead(self) -> int:
        """Dead units of all layers."""
        return sum(self.dead_units.values())


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Test accuracy after a cycle, with the batch-norm statistics of training and with those of the final mask."""

    cycle: int
    accuracy: float
    recalibrated: float | None = None


@dataclass(frozen=True, kw_only=True)
class EpochTime:
    """Duration of an epoch, and the share of it, in 0 to 1, spent waiting for data."""

    cycle: int
    epoch: int
    seconds: float
    data_wait: float


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


@dataclass(kw_only=True)
class CycleResult:
    """What one cycle found; the accuracies are filled in by `Evaluate`.

    Dense training is one cycle with all edges kept.

    Attributes:
        cycle: number of the cycle, from 1.
        rate: fraction of the edges kept in layers that are not pinned.
        remaining: fraction kept over all masked edges, pinned layers included.
        kept, edges: of the masked layers.
        loss, train_accuracy: means over the last epoch.
        dying: d, never selected over all edges (hard iEP: the worst case).
        explored: k - d.
        apparent, apparent_of_all: never selected among the survivors, over the survivors and over all edges.
        dying_cumulative: d over all cycles so far.
        dead_units: units without an input, by layer.
        accuracy: on the test set, with the batch-norm statistics of training.
        recalibrated: on the test set, with batch-norm statistics of the final mask.
    """

    cycle: int
    rate: float
    remaining: float
    kept: int
    edges: int
    loss: float
    train_accuracy: float
    dying: float
    explored: float
    apparent: float
    apparent_of_all: float
    dying_cumulative: float
    dead_units: dict[str, int]
    accuracy: float | None = None
    recalibrated: float | None = None


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A ticket that was written, loaded again and evaluated.

    Attributes:
        file: its name in the run folder.
        bytes, dense_bytes: of the file, and of the same network with float32 weights.
        accuracy: of the reloaded network on the test set.
        same_logits: the reloaded network's logits are the searched one's to the bit, on one test batch.
    """

    file: str
    bytes: int
    dense_bytes: int
    accuracy: float
    same_logits: bool
