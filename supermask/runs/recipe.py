"""A recipe: data, network, optimiser and a list of stages; run from Python or from a typed command line."""

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from supermask.data.base import Data, DataMissing, Described
from supermask.devices import device_named
from supermask.methods.cycles import check_cycles
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.networks.summary import summary
from supermask.runs import plan
from supermask.runs.checkpoint import CheckpointError, Checkpoints, read
from supermask.runs.event_files import EventFiles, event_writer
from supermask.runs.folder import (
    RunFolder,
    RunFolderError,
    changed_environment,
    differences,
    newest,
    read_config,
    read_metrics,
)
from supermask.runs.interrupts import Interrupts
from supermask.runs.options import Conversion, RecipeError, RunOptions, RunResult
from supermask.runs.progress import RunProgress, cycle_table
from supermask.runs.session import Session
from supermask.runs.stages import Export, Search, Stage, Train
from supermask.training.global_norm import synchronise
from supermask.training.loop import Loop
from supermask.training.memory import keep_freed_memory
from supermask.training.parallel import Group, group
from supermask.training.training import Training


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
        if not any(isinstance(stage, Train) for stage in self.stages):
            check_cycles([stage.cycle for stage in self.stages if isinstance(stage, Search)])
        elif wrong := [stage for stage in self.stages if isinstance(stage, Search | Export)]:
            raise ValueError(
                f"stages have Train and {type(wrong[0]).__name__}: Train trains the weights of a dense network, which "
                "has no scores and no ticket; make two recipes"
            )

    def execute(self) -> RunResult:
        """Run all stages, or with `run.dry_run` print what they would be.

        Torch's global random state is as it was when this returns.

        Raises:
            DataMissing: the data set is not there.
            DataDamaged: one of its files cannot be read.
            RecipeError: the recipe cannot be begun as configured; nothing was written.
            RunFolderError: the run folder cannot be written, or holds another run than the one to resume.
            NonFiniteError: training broke down.
            Interrupted: SIGINT or SIGTERM came in; what was saved is in the message.
        """
        interrupts = Interrupts()
        with interrupts.listen(), torch.random.fork_rng(devices=[]), ExitStack() as stack:
            torch.manual_seed(self.run.seed)
            if self.run.dry_run:
                self._plan()
                return RunResult(folder=self.run.folder or Path("runs"), cycles=(), tickets=())
            try:
                ranks, device = stack.enter_context(group(self.run.device))
                console = Console(quiet=self.run.quiet or not ranks.first)
                place = device_named(device)
                if place.type == "cpu":
                    keep_freed_memory()
                session = self._begin(console, ranks, place, interrupts)
            except (ValueError, CheckpointError) as error:
                raise RecipeError(str(error)) from error
            with closing(session.folder):
                return self._run(session, console)

    def _run(self, session: Session, console: Console) -> RunResult:
        if session.stage < len(self.stages):
            if any(isinstance(stage, Search) for stage in self.stages):
                console.print(str(summary(session.model)), highlight=False)
            with session.progress:
                for stage in self.stages[session.stage :]:
                    # Training ends at a step, saved; anything else is done again.
                    trains = stage.epochs(self.training) > 0
                    with session.interrupts.deferred() if trains else nullcontext():
                        stage.run(session)
                        session.end_stage(len(self.stages))
        console.print(cycle_table(self.name, session.results))
        if seconds := session.loop.seconds:
            share = session.loop.waited / seconds
            console.print(f"{seconds:,.0f} s of training, {share:.0%} of it waiting for data", highlight=False)
        for ticket in session.tickets:
            console.print(
                f"{session.folder.path / ticket.file}: {ticket.bytes:,} bytes, "
                f"{ticket.dense_bytes / ticket.bytes:.1f} times smaller than "
                f"the dense float32 network ({ticket.dense_bytes:,} bytes); reloaded: accuracy {ticket.accuracy:.2%}, "
                f"logits {'equal' if ticket.same_logits else 'not equal'} to the bit",
                highlight=False,
                soft_wrap=True,
            )
        return RunResult(folder=session.folder.path, cycles=tuple(session.results), tickets=tuple(session.tickets))

    def _begin(self, console: Console, ranks: Group, device: torch.device, interrupts: Interrupts) -> Session:
        """Data, network and, when all else stands, the run folder, in the state of its last checkpoint."""
        options = self.run
        if options.tensorboard:
            event_writer()
        try:
            loaded = self.data.open(seed=options.seed, device=device)
        except DataMissing:
            if isinstance(self.data, Described):  # a wrong network is told before a data set is asked for
                self._architecture(self.data.about().classes).skeleton()
            raise
        batch = getattr(self.data, "batch", None)
        if isinstance(batch, int) and batch % ranks.ranks:
            raise RecipeError(f"batch={batch}: {ranks.ranks} processes share it evenly; choose a multiple of them")
        architecture = self._architecture(loaded.classes)
        model = synchronise(self._network(architecture, device), ranks, device)
        config = self._config(architecture, device, ranks)
        folder = self._folder(config, ranks, console)
        steps = loaded.steps * sum(stage.epochs(self.training) for stage in self.stages)
        cycles = sum(isinstance(stage, Search | Train) for stage in self.stages)
        loop = Loop(model=model, loaded=loaded, training=self.training, device=device, seed=options.seed, group=ranks)
        session = Session(
            model=model,
            architecture=architecture,
            loop=loop,
            folder=folder,
            progress=RunProgress(steps, cycles, console),
            checkpoints=Checkpoints(folder.path / "checkpoints", options.keep_checkpoints),
            interrupts=interrupts,
            checkpoint_seconds=options.checkpoint_seconds,
            report=lambda sentence: print(sentence, file=sys.stderr),
        )
        payload = b""
        if ranks.first and options.resume:
            payload = session.checkpoints.newest(session.report) or b""
        if payload := ranks.send(payload):
            session.load_state(read(payload))
            session.progress.skip(loop.step)
            if ranks.first and (changed := changed_environment(folder.path)):
                session.report(f"{folder.path}: {'; '.join(changed)}: the run goes on, but not to the same bits")
            console.print(f"{folder.path}: goes on after {loop.step} of {steps} steps", highlight=False, soft_wrap=True)
        else:
            folder.rewind({})
            if options.resume and ranks.first and (folder.path / "config.json").exists():
                session.report(f"{folder.path}: no whole checkpoint to go on from, so the run is begun anew")
            folder.write_config(config)
        if options.tensorboard and ranks.first and session.stage < len(self.stages):
            folder.mirror = EventFiles(folder.path / "tensorboard", read_metrics(folder.path))
        return session

    def _architecture(self, classes: int) -> Architecture:
        architecture = self.network(classes)
        if not isinstance(architecture, Architecture):
            raise RecipeError(f"network gave {type(architecture).__name__}: expected a supermask.Architecture")
        return architecture

    def _network(self, architecture: Architecture, device: torch.device) -> nn.Module:
        """The network on `device`, converted if a stage searches it."""
        dense = architecture.build().to(device)
        cycles = [stage.cycle for stage in self.stages if isinstance(stage, Search)]
        if not cycles:
            return dense.to(memory_format=torch.channels_last)
        conversion = {field.name: getattr(self.conversion, field.name) for field in fields(self.conversion)}
        return convert(dense, self.run.seed, remaining=cycles[0].remaining, **conversion)

    def _config(self, architecture: Architecture, device: torch.device, ranks: Group) -> dict[str, Any]:
        """What the run is, of JSON's own types."""
        stages = [{"stage": type(stage).__name__, **asdict(cast(Any, stage))} for stage in self.stages]
        data = {"type": type(self.data).__name__, **asdict(cast(Any, self.data))}
        made = {"network": architecture.to_json(), "stages": stages, "data": data}
        config = asdict(self) | made | {"device": device.type, "processes": ranks.ranks}
        plain: dict[str, Any] = json.loads(json.dumps(config, default=str))
        return plain

    def _how(self) -> list[str]:
        """Settings in which two runs of one experiment may differ: how it is run, and how its data is had."""
        options = [f"run.{option.name}" for option in fields(self.run) if option.name != "seed"]
        return options + [f"data.{option.name}" for option in fields(cast(Any, self.data)) if not option.repr]

    def _folder(self, config: Mapping[str, Any], ranks: Group, console: Console) -> RunFolder:
        options = self.run
        if not ranks.first:
            return RunFolder(Path(ranks.send(b"").decode()), silent=True)
        if not options.resume:
            folder = RunFolder(options.folder) if options.folder else RunFolder.next_free(Path("runs"), self.name)
        elif path := options.folder or newest(Path("runs"), self.name, config, self._how()):
            began = read_config(path) if path.is_dir() else None
            if differing := [] if began is None else differences(began, config, self._how()):
                raise RunFolderError(
                    f"run folder {path} holds a run of another configuration: {'; '.join(differing)}: give the "
                    "arguments it was begun with, or another folder"
                )
            folder = RunFolder(path, resume=True, patience=10)
            if began is None:
                console.print(f"{path}: nothing to resume there, so the run is begun", highlight=False, soft_wrap=True)
        else:
            folder = RunFolder.next_free(Path("runs"), self.name)
            sentence = f"{folder.path}: no run of this configuration to resume, so one is begun"
            console.print(sentence, highlight=False, soft_wrap=True)
        ranks.send(str(folder.path).encode())
        return folder

    def _plan(self) -> None:
        """Print what the stages would do; nothing is written, and no data set need be there whose size is known."""
        try:
            data = plan.sizes(self.data, self.run.seed)
            architecture = self._architecture(data.classes)
            model = self._network(architecture, torch.device("cpu"))
        except ValueError as error:
            raise RecipeError(str(error)) from error
        stages = [
            (stage.cycle if isinstance(stage, Search) else None, stage.epochs(self.training))
            for stage in self.stages
            if isinstance(stage, Search | Train)
        ]
        console = Console(quiet=self.run.quiet)
        console.print(f"{self.name}: {architecture}, {data}", highlight=False, soft_wrap=True)
        plan.show(console, model, architecture.skeleton(), data, stages, self.training.precision)
