"""A recipe: data, network, optimiser and a list of stages; run from Python or from a typed command line."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
        quiet: print nothing.
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
        check_cycles([stage.cycle for stage in self.stages if isinstance(stage, Search)])

    def execute(self) -> RunResult:
        """Run all stages.

        Torch's global random state is as it was when this returns.

        Raises:
            DataMissing: the data set is not there.
            RunFolderError: the run folder cannot be written.
            NonFiniteError: training broke down.
        """
        options = self.run
        device = _device(options.device)
        console = Console(quiet=options.quiet)
        loaded = self.data.open(seed=options.seed, device=device)
        cycles = [stage.cycle for stage in self.stages if isinstance(stage, Search)]
        architecture = self.network(loaded.classes)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            model = convert(
                architecture.build().to(device), options.seed, remaining=cycles[0].remaining, **asdict(self.conversion)
            )
            folder = RunFolder(options.folder) if options.folder else RunFolder.next_free(Path("runs"), self.name)
            folder.write_config(asdict(self) | {"network": asdict(architecture)})
            console.print(str(summary(model)), highlight=False)
            steps = loaded.steps * self.training.epochs * sum(cycle.length for cycle in cycles)
            loop = Loop(model=model, loaded=loaded, training=self.training, device=device)
            with RunProgress(steps, len(cycles), console) as progress:
                session = Session(model=model, architecture=architecture, loop=loop, folder=folder, progress=progress)
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
        return RunResult(folder=folder.path, cycles=tuple(session.results), tickets=tuple(session.tickets))


def main(recipe: Callable[..., Recipe]) -> None:
    """Command line of a recipe: its function's arguments become typed flags; then run it.

    Exits with 2 and one sentence where the data, the folder or an argument is at fault, with 1 where training broke
    down.
    """
    import tyro

    try:
        tyro.cli(recipe).execute()
    except (DataMissing, RunFolderError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except NonFiniteError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
