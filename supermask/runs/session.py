"""One run in progress: what its stages share, how it is saved and how it goes on."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from signal import Signals
from typing import Any

import torch
from torch import Tensor, nn

from supermask.data.base import Loaded
from supermask.methods.cycles import Cycle
from supermask.methods.method import EDGE_POPUP, Method
from supermask.networks.architecture import Architecture
from supermask.runs.checkpoint import CheckpointError, Checkpoints
from supermask.runs.folder import RunFolder, RunFolderError
from supermask.runs.hook import Begun, Hook
from supermask.runs.hooked import Hooked
from supermask.runs.identity import read_config
from supermask.runs.interrupts import Interrupted, Interrupts
from supermask.runs.options import RunResult
from supermask.runs.progress import RunProgress
from supermask.runs.read import read_metrics, summarise
from supermask.runs.recorder import Recorder, Seen
from supermask.runs.records import SUMMARY, UNTOLD, CycleResult, Ended, Exported, RunReadError
from supermask.runs.validation import NEVER, Validator
from supermask.training.loop import EpochResult, Loop
from supermask.training.schedules import Rate
from supermask.training.training import unsearched

VERSION = 1
"""Of the layout of a checkpoint."""


@dataclass(kw_only=True)
class Done:
    """How far a run came, and what it found.

    Attributes:
        stage, stage_epoch: stages that are done, and epochs of the one in progress.
        lr: the last one applied.
        lr_before: the last one applied before the stage in progress; None before any.
        trained: result of the last epoch.
        results: of the cycles so far.
        tickets: exported so far.
    """

    stage: int = 0
    stage_epoch: int = 0
    lr: float = 0.0
    lr_before: float | None = None
    trained: EpochResult | None = None
    results: list[CycleResult] = field(default_factory=list)
    tickets: list[Exported] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """As plain values, by the names of the fields."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` says, which may hold other things too."""
        self.stage, self.stage_epoch, self.lr = state["stage"], state["stage_epoch"], state["lr"]
        self.trained = EpochResult(**state["trained"]) if state["trained"] else None
        # Older checkpoints have it not; of constant rates, which alone go by it there, it is the last one.
        self.lr_before = state.get("lr_before", self.lr if self.trained else None)
        self.results = [CycleResult(**result) for result in state["results"]]
        self.tickets = [Exported(**ticket) for ticket in state["tickets"]]


@dataclass(kw_only=True)
class Session:
    """One run in progress.

    A stage trains through `train`, if it trains, and keeps nothing of its own: what it needs to go on is here.

    Attributes:
        model: the network, converted where it is searched.
        architecture: what the network is rebuilt from.
        loop: trains it, with the method's hooks.
        folder: where the run writes.
        progress: what the run shows.
        checkpoints: where it saves.
        method: begins each cycle.
        cycles: of the stages that search, by their number from 0.
        open: the data of a cycle; by default what the loop has.
        interrupts: the signals it heeds.
        checkpoint_seconds: how much work a killed run may lose; a stage's end is saved besides.
        report: takes a sentence for the user.
        validator: evaluates on held-out images, and picks by them.
        hooks: the user's; `hooked` calls them.
        initial: biases and normalisation that are trained, as they were before any training.
        seen: the edges selected so far.
        optimiser: as the last cycle left it.
        done: stages, epochs and results so far.
    """

    model: nn.Module
    architecture: Architecture
    loop: Loop
    folder: RunFolder
    progress: RunProgress
    checkpoints: Checkpoints
    method: Method = EDGE_POPUP
    cycles: Mapping[int, Cycle] = field(default_factory=dict)
    open: Callable[[Cycle], Loaded] | None = None
    interrupts: Interrupts = field(default_factory=Interrupts)
    checkpoint_seconds: float = 60.0
    report: Callable[[str], object] = lambda _: None
    validator: Validator = field(default_factory=lambda: Validator(NEVER))
    hooks: tuple[Hook, ...] = ()
    hooked: Hooked = field(init=False)
    initial: Mapping[str, Tensor] = field(init=False)
    seen: Seen = field(init=False)
    optimiser: torch.optim.Optimizer | None = None
    done: Done = field(default_factory=Done)
    _saved_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._saved_at = time.monotonic()
        self.seen = Seen(self.model)
        self.loop.beside = self.hooked = Hooked(self.hooks, self.loop, self.report)
        besides = unsearched(self.model) if self.seen.layers else {}
        self.initial = {name: parameter.detach().clone() for name, parameter in besides.items()}

    @property
    def begun(self) -> bool:
        """Whether the stage in progress has trained already, before the run was stopped and resumed."""
        return self.done.stage_epoch > 0 or self.loop.tally.step > 0

    def begin_hooks(self, *, over: bool = False) -> None:
        """The user's hooks hear of the run, and from here on of each line of the metrics; `over` if all its stages are
        done."""
        if not self.hooks:
            return
        folder, group = self.folder, self.loop.group
        settings = read_config(folder.path) or {}
        run = Begun(
            name=settings["name"],
            folder=folder.path,
            settings=settings,
            seed=self.loop.seed,
            step=self.loop.step,
            events=read_metrics(folder.path) if group.first else (),
            device=self.loop.device,
            rank=group.rank,
            ranks=group.ranks,
        )
        self.hooked.begin(run, over=over)
        if group.first and self.hooked.logs:
            folder.mirror = self.hooked.log

    def conclude(self, result: RunResult) -> None:
        """The user's hooks hear that all is done; then the run is written in short, and which trackers --resume has to
        tell more. What cannot be written is told, and takes nothing from a run that ended well."""
        self.hooked.end(result)
        if not self.loop.group.first:
            return
        behind, folder = self.hooked.behind, self.folder
        try:
            if behind:
                folder.write(UNTOLD, f"{json.dumps(behind)}\n".encode())
            text = json.dumps(summarise(folder.path).to_event(), indent=2)
            folder.write(SUMMARY, f"{text}\n".encode())
            if not behind:
                (folder.path / UNTOLD).unlink(missing_ok=True)
        except RunReadError as error:
            self.report(f"{error}: the run ended, without {SUMMARY}; mend the file, and --resume writes it")
        except RunFolderError as error:
            self.report(f"the run ended, but {error}")

    def enter(self, cycle: Cycle) -> None:
        """The stage in progress is, or comes after, `cycle`: train and evaluate on its data."""
        if self.open:
            self.loop.loaded = self.open(cycle)

    def train(self, rates: Sequence[Rate], recorder: Recorder) -> None:
        """A cycle: an epoch at each of the `rates`, from where the stage stands, and its result.

        What `recorder` logs of an epoch belongs to the checkpoint after it.

        Raises:
            Interrupted: a signal came in; the run is saved.
        """
        if self.optimiser is None:
            raise RuntimeError("no optimiser: a stage sets session.optimiser before it trains")
        done = self.done
        self.hooked.cycle, self.hooked.plan = recorder.number, self.cycles.get(done.stage)
        cycle, epochs = self.cycles.get(done.stage), len(rates)
        if not self.begun:
            recorder.begin()
        for rate in rates[done.stage_epoch :]:
            if cycle is not None and not self.loop.tally.step:
                self.method.begin_epoch(self.model, cycle, done.stage_epoch, epochs)
            done.trained = self.loop.run_epoch(self.optimiser, rate, self._after_step)
            done.lr = self.loop.lr
            done.stage_epoch += 1
            self.loop.group.check_masks(self.model)
            last = cycle is None or cycle.rate(done.stage_epoch - 1, epochs) == cycle.remaining
            accuracy = self.validator.after_epoch(self.loop, done.stage_epoch, epochs, may_pick=last)
            record = recorder.epoch(self.loop, done.lr, done.trained, accuracy)
            self.progress.show(record, self.loop.took)
            self.hooked.end_epoch(self.optimiser, record)
            self._save_if_wanted()
        if not epochs:
            self.validator.after_epoch(self.loop, 0, 0, may_pick=False)
        trained = done.trained if epochs else None
        done.results.append(recorder.cycle(trained, self.validator.end_cycle(self.model)))

    def end_cycle(self) -> None:
        """The last cycle is over, with what evaluates it."""
        self.hooked.end_cycle(self.optimiser, self.done.results[-1])

    def end_stage(self, stages: int) -> None:
        """The stage in progress is done, one of `stages`: save.

        Raises:
            Interrupted: a signal came in and there is more to do; the run is saved.
        """
        self.done.stage += 1
        self.done.stage_epoch = 0
        if self.done.stage == stages:
            self.folder.log(Ended())
            self.save()
        else:
            self._save_if_wanted(always=True)

    def _after_step(self) -> None:
        self.progress.advance()
        self._save_if_wanted()

    def _save_if_wanted(self, *, always: bool = False) -> None:
        due = always or (self.loop.group.first and time.monotonic() - self._saved_at >= self.checkpoint_seconds)
        # All processes of a run do the same: what any of them wants.
        wish = self.loop.group.highest(self.interrupts.pending or int(due))
        if not wish:
            return
        saved = self.save()
        if wish > 1:
            name = Signals(wish).name
            where = f"interrupted by {name} at step {self.loop.step} (epoch {self.loop.epoch + 1} of the run)"
            raise Interrupted(f"{where}; {saved}: go on with --resume", wish)

    def save(self) -> str:
        """Write a checkpoint; a sentence says what came of it. A full disk is reported and the run goes on."""
        state = self.state()  # all processes take part
        self._saved_at = time.monotonic()
        if not self.loop.group.first:
            return "saved by the first process"
        try:
            return f"saved to {self.checkpoints.save(state)}"
        except CheckpointError as error:
            self.report(str(error))
            return str(error)

    def state(self) -> dict[str, Any]:
        """All that a run needs to go on, as tensors and plain values; every process calls it at the same step."""
        self.loop.reduce()
        besides = {"validation": self.validator.state_dict()} if self.validator.says.every else {}
        if hooks := self.hooked.state_dict():
            besides["hooks"] = hooks
        return besides | {
            "version": VERSION,
            "lengths": self.folder.lengths(),
            "model": self.model.state_dict(),
            "loop": self.loop.state_dict(),
            "optimiser": self.optimiser.state_dict() if self.optimiser else None,
            **self.seen.state_dict(),
            **self.done.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` says; files of the run folder are cut back to what they were then.

        Raises:
            CheckpointError: a state of another version.
        """
        if state.get("version") != VERSION:
            raise CheckpointError(
                f"checkpoint of version {state.get('version')}, this is version {VERSION}: resume it with the "
                "supermask that wrote it, or begin the run anew in another folder"
            )
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise CheckpointError(
                f"the checkpoint in {self.folder.path} is of another network ({error}): resume it with the supermask "
                "that wrote it, or begin the run anew in another folder"
            ) from error
        self.seen.load_state_dict(state)
        self.optimiser = None
        if state["optimiser"] is not None:
            self.optimiser = self._optimiser_of(state)
            self.optimiser.load_state_dict(state["optimiser"])
        if "validation" in state:
            self.validator.load_state_dict(state["validation"])
        self.hooked.load_state_dict(state.get("hooks", {}))
        self.loop.load_state_dict(state["loop"])
        self.done.load_state_dict(state)
        if begun := [cycle for stage, cycle in self.cycles.items() if stage <= self.done.stage]:
            self.enter(begun[-1])
            self.hooked.cycle, self.hooked.plan = len(self.done.results), begun[-1]
        self.folder.rewind(state["lengths"])  # last: a state that does not fit costs nothing

    def _optimiser_of(self, state: Mapping[str, Any]) -> torch.optim.Optimizer:
        """A fresh one as the last cycle that made one had it: it had begun, and rewound the learning rate."""
        training = self.loop.training
        begun = state["stage"] + (state["stage_epoch"] > 0 or bool(state["loop"]["losses"]))
        made = [cycle for stage, cycle in self.cycles.items() if stage < begun and cycle.lr == "rewind"]
        return self.method.optimiser(self.model, training, made[-1]) if made else training.make_optimiser(self.model)
