"""A recipe: data, network, optimiser and a list of stages; run from Python or from a typed command line."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console

from kernels.philox import as_int64
from supermask.convert import BiasPolicy, NormPolicy, convert, summary
from supermask.cycles import check_cycles
from supermask.data import Data, DataMissing
from supermask.draws import Magnitude, ScoreInit, WeightInit
from supermask.folder import RunFolder, RunFolderError
from supermask.networks import Architecture
from supermask.progress import RunProgress, cycle_table
from supermask.stages import CycleResult, Exported, Search, Session, Stage
from supermask.train import Loop, NonFiniteError, Training


class RecipeError(ValueError):
    """A recipe that cannot be begun as configured; the message names the value at fault."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How the network is made searchable; see `supermask.convert`.

    Attributes:
        overrides: remaining rate by layer name or pattern, kept through all cycles: fc 1.0 keeps that layer whole.
        bias: what becomes of the biases of masked layers.
        norm: what becomes of the scale and shift of normalisation layers.
        weights: distribution of the weights.
        scores: distribution of the initial scores.
        magnitude: what edges are ranked by.
    """

    overrides: Mapping[str, float] = field(default_factory=dict)
    bias: BiasPolicy = "drop"
    norm: NormPolicy = "non_affine"
    weights: WeightInit = "signed_constant"
    scores: ScoreInit = "kaiming_uniform"
    magnitude: Magnitude = "abs"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how one run happens.

    Attributes:
        seed: 64 bits: of the weights, the initial scores and the order of the data.
        folder: what the run writes to; by default the next free runs/NAME-N.
        device: where to run; by default the GPU if there is one.
        quiet: no progress and no tables.
    """

    seed: int = 0
    folder: Path | None = None
    device: str = "auto"
    quiet: bool = False

    def __post_init__(self) -> None:
        as_int64(self.seed)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run leaves: its folder, a result a cycle, and its tickets."""

    folder: Path
    cycles: tuple[CycleResult, ...]
    tickets: tuple[Exported, ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment.

    Attributes:
        name: of the recipe, and of its run folders.
        data: the data set.
        network: the architecture for a number of classes.
        training: optimiser and schedule of a cycle.
        stages: what is done, in order.
        conversion: how the network is made searchable.
        run: where and how.
    """

    name: str
    data: Data
    network: Callable[[int], Architecture]
    training: Training
    stages: tuple[Stage, ...]
    conversion: Conversion = Conversion()
    run: RunOptions = RunOptions()

    def __post_init__(self) -> None:
        for number, stage in enumerate(self.stages, start=1):
            if not callable(getattr(stage, "run", None)):
                raise ValueError(
                    f"stage {number} is {stage!r}: expected a stage such as Search, Evaluate or Export; "
                    "supermask.search(cycles) gives several, to be unpacked with *"
                )
        check_cycles([stage.cycle for stage in self.stages if isinstance(stage, Search)])

    def execute(self) -> RunResult:
        """Run all stages.

        Torch's global random state is as it was when this returns.

        Raises:
            DataMissing: the data set is not there.
            RecipeError: the recipe cannot be begun as configured; nothing was written.
            RunFolderError: the run folder cannot be written.
            NonFiniteError: training broke down.
        """
        console = Console(quiet=self.run.quiet)
        with torch.random.fork_rng():
            torch.manual_seed(self.run.seed)
            try:
                session = self._begin(console)
            except ValueError as error:
                raise RecipeError(str(error)) from error
            console.print(str(summary(session.model)), highlight=False)
            with session.progress:
                for stage in self.stages:
                    stage.run(session)
        console.print(cycle_table(self.name, session.results))
        for ticket in session.tickets:
            console.print(
                f"{ticket.path}: {ticket.bytes:,} bytes, {ticket.dense_bytes / ticket.bytes:.1f} times smaller than "
                f"the dense float32 network ({ticket.dense_bytes:,} bytes); reloaded: accuracy {ticket.accuracy:.2%}, "
                f"logits {'equal' if ticket.same_logits else 'not equal'} to the bit",
                highlight=False,
                soft_wrap=True,
            )
        return RunResult(folder=session.folder.path, cycles=tuple(session.results), tickets=tuple(session.tickets))

    def _begin(self, console: Console) -> Session:
        """Data, network and, when all else stands, the run folder."""
        options = self.run
        device = _device(options.device)
        loaded = self.data.open(seed=options.seed, device=device)
        cycles = [stage.cycle for stage in self.stages if isinstance(stage, Search)]
        architecture = self.network(loaded.classes)
        if not isinstance(architecture, Architecture):
            raise ValueError(f"network gave {type(architecture).__name__}: expected a supermask.Architecture")
        conversion = {field.name: getattr(self.conversion, field.name) for field in fields(self.conversion)}
        model = convert(architecture.build().to(device), options.seed, remaining=cycles[0].remaining, **conversion)
        folder = RunFolder(options.folder) if options.folder else RunFolder.next_free(Path("runs"), self.name)
        stages = [{"stage": type(stage).__name__, **asdict(cast(Any, stage))} for stage in self.stages]
        folder.write_config(asdict(self) | {"network": architecture.to_json(), "stages": stages, "device": str(device)})
        steps = loaded.steps * sum(stage.epochs(self.training) for stage in self.stages)
        return Session(
            model=model,
            architecture=architecture,
            loop=Loop(model=model, loaded=loaded, training=self.training, device=device, seed=options.seed),
            folder=folder,
            progress=RunProgress(steps, len(cycles), console),
        )


def main(recipe: Callable[..., Recipe]) -> None:
    """Command line of a recipe: its function's arguments become typed flags; then run it.

    Exits with 2 and one sentence where the data, the folder or an argument is at fault, with 1 where training broke
    down.
    """
    import tyro

    try:
        planned: Recipe = tyro.cli(recipe)
    except ValueError as error:  # tyro itself exits; this is a configuration's own check
        print(error, file=sys.stderr)
        sys.exit(2)
    try:
        planned.execute()
    except (DataMissing, RecipeError, RunFolderError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except NonFiniteError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: the run folder keeps the metrics so far and no ticket", file=sys.stderr)
        sys.exit(130)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: torch finds no GPU here; run on cpu")
    return device
