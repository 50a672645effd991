"""One run in progress: what its stages share, how it is saved and how it goes on."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from signal import Signals
from typing import Any

import torch
from torch import Tensor, nn

from supermask.edges.in_model import all_edges
from supermask.edges.searched import SearchedEdges
from supermask.networks.architecture import Architecture
from supermask.runs.checkpoint import CheckpointError, Checkpoints
from supermask.runs.folder import RunFolder
from supermask.runs.interrupts import Interrupted, Interrupts
from supermask.runs.progress import RunProgress
from supermask.runs.records import CycleResult, Exported
from supermask.training.loop import EpochResult, Loop
from supermask.training.measures import Cumulative
from supermask.training.training import unsearched

_VERSION = 1


@dataclass(kw_only=True)
class Session:
    """One run in progress.

    A stage trains through `epochs`, if it trains, and keeps nothing of its own: what it needs to go on is here.

    Attributes:
        model: the network, converted where it is searched.
        architecture: what the network is rebuilt from.
        loop: trains it.
        folder: where the run writes.
        progress: what the run shows.
        checkpoints: where it saves.
        interrupts: the signals it heeds.
        checkpoint_seconds: how much work a killed run may lose; a stage's end is saved besides.
        report: takes a sentence for the user.
        initial: biases and normalisation that are trained, as they were before any training.
        optimiser, lr: as the last cycle left them.
        trained: result of the last epoch.
        stage, stage_epoch: stages that are done, and epochs of the one in progress.
        results: of the cycles so far.
        tickets: exported so far.
    """

    model: nn.Module
    architecture: Architecture
    loop: Loop
    folder: RunFolder
    progress: RunProgress
    checkpoints: Checkpoints
    interrupts: Interrupts = field(default_factory=Interrupts)
    checkpoint_seconds: float = 60.0
    report: Callable[[str], object] = lambda _: None
    initial: Mapping[str, Tensor] = field(init=False)
    optimiser: torch.optim.Optimizer | None = None
    lr: float = 0.0
    trained: EpochResult | None = None
    stage: int = 0
    stage_epoch: int = 0
    results: list[CycleResult] = field(default_factory=list)
    tickets: list[Exported] = field(default_factory=list)
    cumulative: Cumulative = field(default_factory=Cumulative)
    _saved_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._saved_at = time.monotonic()
        besides = unsearched(self.model) if _searched(self.model) else {}
        self.initial = {name: parameter.detach().clone() for name, parameter in besides.items()}

    @property
    def begun(self) -> bool:
        """Whether the stage in progress has trained already, before the run was stopped and resumed."""
        return self.stage_epoch > 0 or self.loop.tally.step > 0

    @property
    def last_epoch(self) -> EpochResult:
        """Result of the last epoch of training."""
        if self.trained is None:
            raise RuntimeError("no epoch was trained in this run")
        return self.trained

    def epochs(self, rates: Sequence[float]) -> Iterator[float]:
        """Train an epoch at each of the `rates`, from where the stage stands; gives the rate after each.

        `last_epoch` is its result. What the caller logs of an epoch before it asks for the next one belongs to
        the checkpoint.

        Raises:
            Interrupted: a signal came in; the run is saved.
        """
        if self.optimiser is None:
            raise RuntimeError("no optimiser: a stage sets session.optimiser before it trains")
        for lr in rates[self.stage_epoch :]:
            self.trained = self.loop.run_epoch(self.optimiser, lr, self._after_step)
            self.lr = lr
            self.stage_epoch += 1
            self.loop.group.check_masks(self.model)
            yield lr
            self._save_if_wanted()

    def end_stage(self, stages: int) -> None:
        """The stage in progress is done, one of `stages`: save.

        Raises:
            Interrupted: a signal came in and there is more to do; the run is saved.
        """
        self.stage += 1
        self.stage_epoch = 0
        if self.stage == stages:
            self.folder.log("end")
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
        """All that a run needs to go on, as tensors and plain values."""
        return {
            "version": _VERSION,
            "stage": self.stage,
            "stage_epoch": self.stage_epoch,
            "loop": self.loop.state(),
            "model": self.model.state_dict(),
            "ever": {name: e.ever for name, e in _searched(self.model).items() if e.ever is not None},
            "cumulative": dict(self.cumulative.ever),
            "optimiser": self.optimiser.state_dict() if self.optimiser else None,
            "lr": self.lr,
            "trained": asdict(self.trained) if self.trained else None,
            "results": [asdict(result) for result in self.results],
            "tickets": [asdict(ticket) for ticket in self.tickets],
            "lengths": self.folder.lengths(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` says; files of the run folder are cut back to what they were then.

        Raises:
            CheckpointError: a state of another version.
        """
        if state.get("version") != _VERSION:
            raise CheckpointError(
                f"checkpoint of version {state.get('version')}, this is version {_VERSION}: resume it with the "
                "supermask that wrote it, or begin the run anew in another folder"
            )
        device = self.loop.device
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise CheckpointError(
                f"the checkpoint in {self.folder.path} is of another network ({error}): resume it with the supermask "
                "that wrote it, or begin the run anew in another folder"
            ) from error
        for name, edges in _searched(self.model).items():
            edges.ever = state["ever"][name].to(device) if name in state["ever"] else None
        self.cumulative = Cumulative({name: bits.to(device) for name, bits in state["cumulative"].items()})
        self.optimiser = None
        if state["optimiser"] is not None:
            self.optimiser = self.loop.training.optimiser(self.model)
            self.optimiser.load_state_dict(state["optimiser"])
        self.loop.load_state(state["loop"])
        self.lr = state["lr"]
        self.trained = EpochResult(**state["trained"]) if state["trained"] else None
        self.results = [CycleResult(**result) for result in state["results"]]
        self.tickets = [Exported(**ticket) for ticket in state["tickets"]]
        self.stage, self.stage_epoch = state["stage"], state["stage_epoch"]
        self.folder.rewind(state["lengths"])  # last: a state that does not fit costs nothing


def _searched(model: nn.Module) -> dict[str, SearchedEdges]:
    return {name: edges for name, edges in all_edges(model).items() if isinstance(edges, SearchedEdges)}
