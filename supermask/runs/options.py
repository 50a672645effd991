"""How the network of a recipe is made searchable, where and how a run happens, and what it leaves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from supermask.checks import SupermaskError, as_integer
from supermask.edges.draws import Magnitude, ScoreInit, WeightInit
from supermask.kernels.base.philox import as_int64
from supermask.methods.method import Method
from supermask.networks.convert import BiasPolicy
from supermask.networks.norms import NormPolicy
from supermask.runs.records import CycleResult, Exported


class RecipeError(SupermaskError, ValueError):
    """A recipe that cannot be begun as configured; the message names the value at fault."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How the network is made searchable; see `supermask.convert`.

    Attributes:
        overrides: remaining rate by layer name, first, last or pattern, kept through all cycles: fc 1.0 keeps that
            layer whole.
        bias: what becomes of the biases of masked layers.
        norm: what becomes of the scale and shift of normalisation layers.
        weights: distribution of the weights; by default, as the next two, the method's.
        scores: distribution of the initial scores.
        magnitude: what edges are ranked by.
    """

    overrides: Mapping[str, float] = field(default_factory=dict)
    bias: BiasPolicy = "drop"
    norm: NormPolicy = "non_affine"
    weights: WeightInit | None = None
    scores: ScoreInit | None = None
    magnitude: Magnitude | None = None

    def chosen(self, method: Method) -> dict[str, Any]:
        """Its fields, with the method's choices where it leaves them to it."""
        return {name: method.choices.get(name) if value is None else value for name, value in vars(self).items()}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how one run happens.

    Attributes:
        seed: 64 bits: of the weights and the initial scores; the order of the data takes the low 32.
        folder: what the run writes to; by default the next free runs/NAME-N.
        device: where to run; by default the GPU if there is one.
        quiet: no progress and no tables.
        resume: go on with a run that was stopped: the one in `folder`, by default the newest of runs/NAME-N with the
            same configuration. Where there is none, one is begun.
        dry_run: print the plan, the memory and the time it takes, and write nothing.
        checkpoint_seconds: seconds of work that a killed run may lose.
        keep_checkpoints: how many of the newest checkpoints stay.
        tensorboard: write TensorBoard event files too: the hook `supermask.trackers.TensorBoard()`.
    """

    seed: int = 0
    folder: Path | None = None
    device: str = "auto"
    quiet: bool = False
    resume: Annotated[bool, tyro.conf.arg(prefix_name=False)] = False
    dry_run: Annotated[bool, tyro.conf.arg(prefix_name=False)] = False
    checkpoint_seconds: float = 60.0
    keep_checkpoints: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.folder is not None:
            object.__setattr__(self, "folder", Path(self.folder))  # a string will do
        object.__setattr__(self, "seed", as_integer("seed", self.seed))  # NumPy's integers are none of JSON's
        as_int64(self.seed)
        if not (math.isfinite(self.checkpoint_seconds) and self.checkpoint_seconds >= 0):
            raise ValueError(f"checkpoint_seconds={self.checkpoint_seconds}: expected a number from 0 up")
        if self.keep_checkpoints < 1:
            raise ValueError(f"keep_checkpoints={self.keep_checkpoints}: expected at least one")


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run leaves: its folder (a dry run has none), a result a cycle, and its tickets."""

    folder: Path | None
    cycles: tuple[CycleResult, ...]
    tickets: tuple[Exported, ...]
