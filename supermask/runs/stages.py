"""What a recipe is made of: stages that search, train, evaluate and export one network in turn.

A stage is a frozen dataclass with `run(session)`; a new method is a new stage or a new list of cycles, not a new loop.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from supermask.edges.in_model import searched_edges
from supermask.kernels.base.bits import popcount
from supermask.methods.cycles import Cycle
from supermask.methods.method import begin_cycle
from supermask.runs.records import CycleResult, Exported
from supermask.runs.session import Session
from supermask.tickets.load import inspect, load
from supermask.tickets.save import save
from supermask.training.evaluate import batch_norms, recalibrate, right_of
from supermask.training.measures import dead_units, dying, ever_selected, track
from supermask.training.traces import Traces, histogram
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
        return training.epochs * self.cycle.length

    def run(self, session: Session) -> None:
        number = len(session.results) + 1
        model, training = session.model, session.loop.training
        traces = Traces(model, session.loop.seed) if session.loop.group.first else None
        rewind = self.cycle.lr == "rewind"
        if not session.begun:
            begin_cycle(model, self.cycle, number, session.initial)
            track(model)
            if rewind:
                session.optimiser = training.optimiser(model)
            if number == 1 and traces:
                session.folder.log_ranks("edges", **traces.edges())
                session.folder.log_ranks("ranks", cycle=1, epoch=0, **traces.ranks(model))
        # Within a cycle of constant rate the last rate applied is that rate, also after a stop.
        rates = training.rates(self.cycle.length) if rewind else [session.lr] * self.epochs(training)
        for lr in session.epochs(rates):
            measured = dying(model)
            _log_epoch(session, number, lr, measured.kept / measured.edges, measured.ratio)
            if traces:
                session.folder.log_ranks("ranks", cycle=number, epoch=session.loop.epoch, **traces.ranks(model))
        measured = dying(model)
        layers = searched_edges(model)
        free = any(not edges.pinned for edges in layers.values())
        result = CycleResult(
            cycle=number,
            rate=self.cycle.remaining if free else measured.kept / measured.edges,
            remaining=measured.kept / measured.edges,
            kept=measured.kept,
            edges=measured.edges,
            loss=session.last_epoch.loss,
            train_accuracy=session.last_epoch.accuracy,
            dying=measured.ratio,
            explored=measured.explored,
            apparent=measured.apparent,
            apparent_of_all=measured.apparent_of_all,
            dying_cumulative=session.cumulative.add(model).ratio,
            dead_units=dead_units(model),
        )
        if not session.loop.group.first:
            session.results.append(result)
            return
        ever = {name: int(popcount(bits).sum()) for name, bits in ever_selected(model).items()}
        details = {
            name: {"edges": edges.count, "kept": int(edges.kept), "ever": ever[name], "scores": histogram(edges)}
            for name, edges in layers.items()
        }
        _log_cycle(session, result, layers=details)
        masks = {name: edges.mask().cpu() for name, edges in layers.items()}
        cols = {"cols": json.dumps({name: edges.cols for name, edges in layers.items()})}
        session.folder.write(f"masks/cycle-{number}.safetensors", to_safetensors(masks, metadata=cols))


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
        number = len(session.results) + 1
        training = session.loop.training
        if not session.begun:
            session.optimiser = training.optimiser(session.model)
        for lr in session.epochs(training.rates(self.length)):
            _log_epoch(session, number, lr, 1.0, 0.0)
        edges = sum(parameter.numel() for parameter in session.model.parameters() if parameter.ndim > 1)
        result = CycleResult(
            cycle=number,
            rate=1.0,
            remaining=1.0,
            kept=edges,
            edges=edges,
            loss=session.last_epoch.loss,
            train_accuracy=session.last_epoch.accuracy,
            dying=0.0,
            explored=0.0,
            apparent=0.0,
            apparent_of_all=0.0,
            dying_cumulative=0.0,
            dead_units={},
        )
        _log_cycle(session, result)


def _log_epoch(session: Session, cycle: int, lr: float, remaining: float, dying_ratio: float) -> None:
    loop, trained = session.loop, session.last_epoch
    session.progress.show(cycle, trained, remaining, dying_ratio, loop.took)
    values = {"cycle": cycle, "epoch": loop.epoch, "step": loop.step}
    session.folder.log(
        "epoch",
        **values,
        lr=lr,
        loss=trained.loss,
        train_accuracy=trained.accuracy,
        remaining=remaining,
        dying=dying_ratio,
    )
    if loop.took:
        session.folder.log_time("epoch", **values, **asdict(loop.took))


def _log_cycle(session: Session, result: CycleResult, **details: Any) -> None:
    session.results.append(result)
    session.folder.log("cycle", **{k: v for k, v in asdict(result).items() if v is not None}, **details)


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
            measured: dict[str, Any] = {"accuracy": _accuracy(session, model)}
            if self.recalibrate and batch_norms(model):
                recalibrate(model, loop.loaded.calibrate(part))
                measured["recalibrated"] = _accuracy(session, model)
        if session.results:
            for name, value in measured.items():
                setattr(session.results[-1], name, value)
        session.folder.log("evaluate", cycle=len(session.results), **measured)


def _accuracy(session: Session, model: nn.Module) -> float:
    """On the test set, each process classifying its share."""
    loop = session.loop
    counted = right_of(model, loop.loaded.test(loop.group.part())).to(loop.device)
    right, count = loop.group.sum(counted).tolist()
    if not count:
        raise ValueError("the test data gave no batch")
    return right / count


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
        with torch.no_grad():
            same = torch.equal(session.model(inputs), reloaded(inputs))
        if loop.device.type == "cpu" and not same:
            raise RuntimeError(f"{path}: the reloaded network's logits differ from the searched one's")
        info = inspect(path)
        with loop.autocast():
            reached = _accuracy(session, reloaded)
        exported = Exported(
            file=self.file, bytes=info.file_bytes, dense_bytes=info.dense_bytes, accuracy=reached, same_logits=same
        )
        session.tickets.append(exported)
        values = asdict(exported)
        session.folder.log("export", path=values.pop("file"), **values)


def search(cycles: Sequence[Cycle]) -> tuple[Stage, ...]:
    """Each cycle and its evaluation."""
    return tuple(stage for cycle in cycles for stage in (Search(cycle=cycle), Evaluate()))
