"""A run: does what a configuration says, from the data to the last table."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from supermask.data.base import Data, DataMissing, Described, Loaded
from supermask.devices import device_named
from supermask.edges.in_model import searched_edges
from supermask.methods.cycles import Cycle
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.networks.summary import summary
from supermask.runs import plan, threads
from supermask.runs.checkpoint import CheckpointError, Checkpoints, read
from supermask.runs.configuration import Configuration
from supermask.runs.duration import StepTimes
from supermask.runs.environment import changed_environment
from supermask.runs.first_batch import try_out
from supermask.runs.folder import RunFolder, RunFolderError
from supermask.runs.hook import Hook
from supermask.runs.identity import begun_in, differences, newest, read_config, why_none
from supermask.runs.interrupts import Interrupts
from supermask.runs.options import RecipeError, RunResult
from supermask.runs.progress import RunProgress, cycle_table
from supermask.runs.read import settled
from supermask.runs.records import CONFIG, SUMMARY
from supermask.runs.session import Session
from supermask.runs.stages import Export, ends_cycle
from supermask.runs.trackers import TensorBoard
from supermask.runs.trial import batch_of, trial, undisturbed
from supermask.runs.validation import Validator
from supermask.training.global_norm import synchronise
from supermask.training.loop import Loop
from supermask.training.memory import keep_freed_memory
from supermask.training.parallel import Group, group


def execute(says: Configuration) -> RunResult:
    """Run all stages, or with `run.dry_run` print what they would be; raises as `Recipe.execute` tells."""
    if says.run.dry_run:
        plan_of(says, StepTimes())
        return RunResult(folder=None, cycles=(), tickets=())
    interrupts = Interrupts()
    with interrupts.listen(), torch.random.fork_rng(devices=[]), threads.restored(), ExitStack() as stack:
        torch.manual_seed(says.run.seed)
        try:
            ranks, device = stack.enter_context(group(says.run.device))
            run = Run(says=says, ranks=ranks, device=device_named(device), interrupts=interrupts)
            session = run.begin()
        except (ValueError, CheckpointError) as error:
            raise RecipeError(str(error)) from error
        with closing(session.folder):
            return run.finish(session)


def plan_of(says: Configuration, times: StepTimes) -> float | None:
    """`show_plan`, with the refusals and the manners of a run."""
    with Interrupts(advice="").listen(), torch.random.fork_rng(devices=[]), threads.restored():
        torch.manual_seed(says.run.seed)
        try:
            return show_plan(says, times)
        except ValueError as error:
            raise RecipeError(str(error)) from error


def show_plan(says: Configuration, times: StepTimes) -> float | None:
    """Print what the stages would do; nothing is written, and no data set need be there whose size is known.

    Returns:
        The seconds that it would take; None where a step of it is not timed here.
    """
    device = device_named(says.run.device)
    data = plan.sizes(says.data, says.run.seed)
    architecture = says.architecture(data.classes)
    model = _network(says, architecture, torch.device("cpu"))
    console = Console(quiet=says.run.quiet)
    console.print(f"{says.name}: {architecture}, {data}", highlight=False, soft_wrap=True)
    console.print(plan.trained_by(says.training, says.method if says.cycles else None), highlight=False, soft_wrap=True)
    steps = plan.steps_of_stages(says, data.steps, lambda other: plan.sizes(other, says.run.seed).steps)
    stages = [
        plan.Planned(cycle=cycle, epochs=epochs, steps=epochs * each)
        for (cycle, _, epochs), each in zip(says.trained, steps, strict=True)
    ]
    edges = sum(one.count for one in searched_edges(model).values()) if says.cycles else 0
    trained = edges or sum(parameter.numel() for parameter in model.parameters())
    needs = plan.memory(architecture.skeleton(), data, trained, says.cycles, says.training)
    timed = times.of(says, model, data, needs, device)
    plan.show(console, model, stages, needs, timed.of)
    return None if timed.seconds is None else timed.seconds * sum(stage.steps for stage in stages)


@dataclass(kw_only=True)
class Run:
    """One run of a configuration, in one of the processes that share it.

    Attributes:
        says: what is run.
        ranks: the processes of the run.
        device: of this process.
        interrupts: the signals it heeds.
        hooks: what is called beside the method: the configuration's, and those that run options ask for.
    """

    says: Configuration
    ranks: Group
    device: torch.device
    interrupts: Interrupts = field(default_factory=Interrupts)
    console: Console = field(init=False)
    hooks: tuple[Hook, ...] = ()

    def __post_init__(self) -> None:
        self.console = Console(quiet=self.says.run.quiet or not self.ranks.first)

    def begin(self) -> Session:
        """Data, network and, when all else stands, the run folder, in the state of its last checkpoint."""
        says, options = self.says, self.says.run
        says.check_on(self.device, self.ranks.ranks)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.hooks = (*says.hooks, *([TensorBoard()] if options.tensorboard else []))
        loaded = self._open_data(says.data)
        architecture = says.architecture(loaded.classes)
        self._try_out(architecture, says.data, loaded)
        steps = self._steps(architecture, loaded)
        model = synchronise(_network(says, architecture, self.device), self.ranks, self.device)
        config = says.to_json(architecture, self.device, self.ranks.ranks)
        resumed = self._resumed(config)
        self._take_threads(resumed, model, loaded)
        folder = self._folder(config, resumed)
        try:
            session = self._session(folder, model, architecture, loaded, steps)
            self._stand(session, config, sum(steps))
        except (Exception, KeyboardInterrupt):
            folder.abandon()
            raise
        return session

    def _session(
        self, folder: RunFolder, model: nn.Module, architecture: Architecture, loaded: Loaded, steps: Sequence[int]
    ) -> Session:
        says, options = self.says, self.says.run
        return Session(
            model=model,
            architecture=architecture,
            method=says.method,
            cycles=says.cycle_of_stage,
            open=self._opener(loaded),
            loop=Loop(
                model=model,
                hooks=says.method,
                loaded=loaded,
                training=says.training,
                device=self.device,
                seed=options.seed,
                group=self.ranks,
            ),
            folder=folder,
            progress=RunProgress(sum(steps), len(says.trained), self.console, steps),
            checkpoints=Checkpoints(folder.path / "checkpoints", options.keep_checkpoints),
            interrupts=self.interrupts,
            checkpoint_seconds=options.checkpoint_seconds,
            report=_warn,
            validator=Validator(says.validation),
            hooks=self.hooks,
        )

    def finish(self, session: Session) -> RunResult:
        """The stages that are left, the summary, and what the run tells at its end."""
        folder = session.folder
        ended = self.ranks.first and settled(folder.path)
        with session.hooked:
            if not self.ranks.highest(int(ended)):
                session.begin_hooks(over=session.done.stage == len(self.says.course))
                self._finish_stages(session)
                session.conclude(self._result(session))
        self._tell(session)
        return self._result(session)

    def _finish_stages(self, session: Session) -> None:
        stages, done = self.says.course, session.done
        if done.stage < len(stages):
            if session.seen.layers:
                self.console.print(str(summary(session.model)), highlight=False)
            with session.progress:
                for stage in stages[done.stage :]:
                    # Training ends at a step, saved; anything else is done again.
                    trains = stage.epochs(self.says.training) > 0
                    with self.interrupts.deferred() if trains else nullcontext():
                        stage.run(session)
                        if ends_cycle(stages, done.stage, self.says.training):
                            session.end_cycle()
                        session.end_stage(len(stages))

    def _result(self, session: Session) -> RunResult:
        done = session.done
        return RunResult(folder=session.folder.path, cycles=tuple(done.results), tickets=tuple(done.tickets))

    def _tell(self, session: Session) -> None:
        console, loop = self.console, session.loop
        console.print(cycle_table(self.says.name, session.done.results))
        if loop.seconds:
            share = loop.waited / loop.seconds
            console.print(f"{loop.seconds:,.0f} s of training, {share:.0%} of it waiting for data", highlight=False)
        for ticket in session.done.tickets:
            reached = "" if ticket.accuracy is None else f"accuracy {ticket.accuracy:.2%}, "
            self._print(
                f"{session.folder.path / ticket.file}: {ticket.bytes:,} bytes, "
                f"{ticket.dense_bytes / ticket.bytes:.1f} times smaller than "
                f"the dense float32 network ({ticket.dense_bytes:,} bytes); reloaded: {reached}"
                f"logits {'equal' if ticket.same_logits else 'not equal'} to the bit"
            )

    def _open_data(self, data: Data) -> Loaded:
        if data.batch % self.ranks.ranks:
            raise RecipeError(
                f"batch={data.batch}: {self.ranks.ranks} processes share it evenly; choose a multiple of them"
            )
        try:
            loaded = data.open(seed=self.says.run.seed, device=self.device)
        except DataMissing:
            if isinstance(data, Described):  # a wrong network is told before a data set is asked for
                self.says.architecture(data.about().classes).skeleton()
            raise
        self.says.check_held_out(data, loaded)
        return loaded

    def _try_out(self, architecture: Architecture, data: Data, loaded: Loaded) -> None:
        """Raise RecipeError, in all processes, where the network of any of them does not take the data."""
        says, failed = self.says, None
        try:
            try_out(
                lambda: _network(says, architecture, self.device),
                architecture,
                loaded,
                name=type(data).__name__,
                batch=data.batch,
                method=says.method,
                training=says.training,
                device=self.device,
            )
        except Exception as error:  # the others would wait for this process
            failed = error
        if self.ranks.highest(int(failed is not None)):
            other = f"another process cannot train on {type(data).__name__}; it says why"
            raise failed or RecipeError(other)

    def _steps(self, architecture: Architecture, loaded: Loaded) -> list[int]:
        """Of each stage that trains. Data that a cycle has for itself is opened once here, before anything is
        written."""

        def opened(data: Data) -> int:
            found = self._open_data(data)
            if found.classes > loaded.classes:
                raise RecipeError(
                    f"{data} of a cycle has {found.classes} classes: the network is made for the {loaded.classes} of "
                    f"{self.says.data}"
                )
            self._try_out(architecture, data, found)
            return found.steps

        steps = plan.steps_of_stages(self.says, loaded.steps, opened)
        return [epochs * each for (_, _, epochs), each in zip(self.says.trained, steps, strict=True)]

    def _opener(self, loaded: Loaded) -> Callable[[Cycle], Loaded]:
        """Opens the data of a cycle, where it is another than that of the cycle before; `loaded` is the recipe's."""
        says, current = self.says, [(self.says.data, loaded)]

        def opened(cycle: Cycle) -> Loaded:
            data, (had, found) = says.data_of(cycle), current[0]
            if data is not had and data != had:
                found = self._open_data(data)
            current[0] = data, found
            return found

        return opened

    def _resumed(self, config: Mapping[str, Any]) -> Path | None:
        """The folder of the run to go on with; None where one is begun, and in all processes but the first.

        Raises:
            RunFolderError: it holds another run.
        """
        options = self.says.run
        if not options.resume or not self.ranks.first:
            return None
        path = options.folder or newest(Path("runs"), self.says.name, config, self.says.how)
        began = read_config(path) if path and path.is_dir() else None
        if began is not None and (differing := differences(began, config, self.says.how)):
            raise RunFolderError(
                f"run folder {path} holds a run of another configuration: {'; '.join(differing)}: give the "
                "arguments, and the code, it was begun with, or another folder"
            )
        return path

    def _take_threads(self, resumed: Path | None, model: nn.Module, loaded: Loaded) -> None:
        """On a CPU, alone, where the user did not say: as many threads as the run was begun with, or the fastest."""
        if self.device.type != "cpu" or self.ranks.ranks > 1 or threads.said():
            return
        if resumed and (count := threads.recorded(begun_in(resumed))):
            torch.set_num_threads(count)
        elif len(among := threads.counts()) > 1 and self.says.trained:
            usual = torch.get_num_threads()
            try:
                with undisturbed(self.device):
                    batch = batch_of(loaded, self.says.data.batch)
                    count, found = threads.fastest(trial(self.says, model, loaded, batch, self.device), among)
            except Exception as error:  # of a network that cannot be copied; one that cannot be trained says so itself
                torch.set_num_threads(usual)
                _warn(f"threads were not chosen ({type(error).__name__}: {error}): the run takes {usual}")
            else:
                times = ", ".join(f"{seconds:.3g} s with {number}" for number, seconds in found.items())
                self._print(f"threads: {count}, the fastest for this network (a step takes {times})")

    def _folder(self, config: Mapping[str, Any], resumed: Path | None) -> RunFolder:
        options, name = self.says.run, self.says.name
        if not self.ranks.first:
            return RunFolder(Path(self.ranks.send(b"").decode()), silent=True)
        if not options.resume:
            folder = RunFolder(options.folder) if options.folder else RunFolder.next_free(Path("runs"), name)
        elif resumed:
            begun = resumed.is_dir() and read_config(resumed) is not None
            folder = RunFolder(resumed, resume=True, patience=10)
            if not begun:
                self._print(f"{resumed}: nothing to resume there, so the run is begun")
        else:
            why = why_none(Path("runs"), name, config, self.says.how)
            folder = RunFolder.next_free(Path("runs"), name)
            self._print(f"{folder.path}: no run of this configuration to resume{why}, so one is begun")
        self.ranks.send(str(folder.path).encode())
        return folder

    def _stand(self, session: Session, config: Mapping[str, Any], steps: int) -> None:
        """Where the last checkpoint left the run, or at its begin."""
        folder, first, resume = session.folder, self.ranks.first, self.says.run.resume
        payload = (session.checkpoints.newest(session.report) or b"") if first and resume else b""
        if payload := self.ranks.send(payload):
            session.load_state(read(payload))
            session.progress.skip(session.loop.step)
            if first and (changed := changed_environment(begun_in(folder.path) or {})):
                session.report(f"{folder.path}: {changed}")
            self._print(f"{folder.path}: goes on after {session.loop.step} of {steps} steps")
        else:
            folder.rewind({})
            if resume and first and (folder.path / CONFIG).exists():
                session.report(f"{folder.path}: no whole checkpoint to go on from, so the run is begun anew")
            folder.write_config(config)
        if first and session.done.stage < len(self.says.course) and (folder.path / SUMMARY).exists():
            (folder.path / SUMMARY).unlink()  # of an end whose checkpoint is lost

    def _print(self, sentence: str) -> None:
        self.console.print(sentence, highlight=False, soft_wrap=True)


def _network(says: Configuration, architecture: Architecture, device: torch.device) -> nn.Module:
    """The network on `device`, converted if a stage searches it."""
    dense = architecture.build().to(device)
    if not says.cycles:
        return dense.to(memory_format=torch.channels_last)
    rate = says.cycles[0].remaining
    given = says.conversion.chosen(says.method)
    if rate is not None:
        given |= {"remaining": rate, "allocate": says.cycles[0].allocate}
    model = convert(dense, says.run.seed, edges=says.method.edges, **given)
    plan.counts(model, says.cycles)  # what cannot be met is refused before anything is written
    drawn = [name for name, edges in searched_edges(model).items() if edges.base is not None]
    if drawn and any(isinstance(stage, Export) for stage in says.course):
        raise RecipeError(
            f"layer {drawn[0]!r} has real-valued weights that are drawn again one by one, which no ticket holds, and "
            "stages export one: convert with weights='signed_constant', or leave Export out"
        )
    return model


def _warn(sentence: str) -> None:
    print(sentence, file=sys.stderr)
