"""What a recipe is made of: stages that search, train, evaluate and export one network in turn.

A stage is a frozen dataclass with `run(session)`; a new method is a new stage or a new list of cycles, not a new loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from supermask.edges.selection import selected_once
from supermask.methods.cycles import Cycle
from supermask.runs.measured import measured
from supermask.runs.recorder import Recorder, SearchRecorder
from supermask.runs.records import Evaluation, Exported
from supermask.runs.session import Session
from supermask.tickets.load import inspect, load
from supermask.tickets.save import save
from supermask.training.evaluate import batch_norms, recalibrate
from supermask.training.training import Training


class Stage(Protocol):
    """One step of a recipe."""

    def epochs(self, training: Training) -> int:
        """Epochs of training that it takes."""
        ...

    def run(self, session: Session) -> None:
        """Do it, on the session's network."""
        ...


@dataclass(frozen=True, kw_only=True)
class Search:
    """One cycle: prepare the scores and the search space, then train the scores."""

    cycle: Cycle

    def epochs(self, training: Training) -> int:
        return self.cycle.epochs(training.epochs)

    def run(self, session: Session) -> None:
        model, training, done, method = session.model, session.loop.training, session.done, session.method
        session.enter(self.cycle)
        session.loop.shift = 0
        if self.cycle.rewind_to is not None:
            session.loop.shift = session.loop.epoch - done.stage_epoch - self.cycle.rewind_to
        recorder = SearchRecorder(
            model,
            session.folder,
            len(done.results) + 1,
            seed=session.loop.seed,
            seen=session.seen,
            rate=self.cycle.remaining,
        )
        if not session.begun:
            done.lr_before = done.lr if done.trained else None
            with torch.no_grad():
                method.begin(model, self.cycle, recorder.number, session.initial)
            if self.cycle.lr == "rewind":
                session.optimiser = method.optimiser(model, training, self.cycle)
        session.train(method.schedule(training, self.cycle, done.lr_before), recorder)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Dense training: the weights themselves, all of them, by the same loop.

    Attributes:
        length: how many times the schedule's epochs it takes.
    """

    length: int = 1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length={self.length}: dense training takes the schedule's epochs at least once")

    def epochs(self, training: Training) -> int:
        return training.epochs * self.length

    def run(self, session: Session) -> None:
        training = session.loop.training
        if not session.begun:
            session.optimiser = training.make_optimiser(session.model)
        recorder = Recorder(session.model, session.folder, len(session.done.results) + 1)
        session.train(training.rates(self.length), recorder)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Test accuracy; with `recalibrate`, again after batch-norm statistics were made anew with the present mask."""

    recalibrate: bool = True

    def epochs(self, training: Training) -> int:
        return 0

    def run(self, session: Session) -> None:
        loop, model = session.loop, session.model
        part = loop.group.part()
        with loop.autocast():
            first = measured(loop, model, loop.loaded.test)
            again: dict[str, float] = {}
            if self.recalibrate and batch_norms(model):
                recalibrate(model, loop.loaded.calibrate(part))
                again = measured(loop, model, loop.loaded.test)
        results = session.done.results
        found = Evaluation(
            cycle=len(results),
            accuracy=first.pop("accuracy", None),
            recalibrated=again.pop("accuracy", None),
            measures=first,
            measures_recalibrated=again,
        )
        if results:
            results[-1] = results[-1].evaluated(found)
        session.folder.log(found)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the ticket into the run folder, load it again and evaluate what was loaded.

    Raises:
        RuntimeError: on CPU, the reloaded network's logits are not those of the searched one.
    """

    file: str = "ticket.safetensors"

    def epochs(self, training: Training) -> int:
        return 0

    def run(self, session: Session) -> None:
        loop = session.loop
        path = session.folder.path / self.file
        if loop.group.first:
            save(session.model, path, architecture=session.architecture)
        loop.group.wait()
        reloaded = load(path, weights="cached", device=loop.device)
        inputs, _ = next(loop.loaded.test(loop.group.part()))
        session.model.eval()
        with torch.no_grad(), selected_once(session.model):
            same = torch.equal(session.model(inputs), reloaded(inputs))
        if loop.device.type == "cpu" and not same:
            raise RuntimeError(f"{path}: the reloaded network's logits differ from the searched one's")
        info = inspect(path)
        with loop.autocast():
            found = measured(loop, reloaded, loop.loaded.test)
        exported = Exported(
            file=self.file,
            bytes=info.file_bytes,
            dense_bytes=info.dense_bytes,
            accuracy=found.pop("accuracy", None),
            same_logits=same,
            measures=found,
        )
        session.done.tickets.append(exported)
        session.folder.log(exported)


def search(cycles: Sequence[Cycle]) -> tuple[Stage, ...]:
    """Each cycle and its evaluation."""
    return tuple(stage for cycle in cycles for stage in (Search(cycle=cycle), Evaluate()))


def ends_cycle(course: Sequence[Stage], number: int, training: Training) -> bool:
    """Whether a cycle and its evaluation are over when that stage of `course`, from 0, is done."""
    first = number
    while first > 0 and isinstance(course[first], Evaluate):
        first -= 1
    over = number + 1 == len(course) or not isinstance(course[number + 1], Evaluate)
    return over and (isinstance(course[first], Search | Train) or course[first].epochs(training) > 0)
