"""What a recipe is made of: stages that search, evaluate and export one network in turn.

A stage is a frozen dataclass with `run(session)`; a new method is a new stage or a new list of cycles, not a new loop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kernels.bits import unpack
from supermask import ticket
from supermask.convert import set_remaining
from supermask.cycles import Cycle
from supermask.evaluate import accuracy, batch_norms, recalibrate
from supermask.folder import RunFolder
from supermask.measures import Cumulative, dead_units, dying, track
from supermask.networks import Architecture
from supermask.progress import RunProgress
from supermask.selection import searched_edges
from supermask.train import Loop, Training, unsearched


@dataclass(kw_only=True)
class CycleResult:
    """What one cycle found; the accuracies are filled in by `Evaluate`.

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
        path: of the ticket.
        bytes, dense_bytes: of the file, and of the same network with float32 weights.
        accuracy: of the reloaded network on the test set.
        same_logits: the reloaded network's logits are the searched one's to the bit, on one test batch.
    """

    path: Path
    bytes: int
    dense_bytes: int
    accuracy: float
    same_logits: bool


@dataclass(kw_only=True)
class Session:
    """One run in progress: what stages share.

    Attributes:
        model: the converted network.
        architecture: what the network is rebuilt from.
        loop: trains it.
        folder: where the run writes.
        progress: what the run shows.
        initial: biases and normalisation that are trained, as they were before any training.
        optimiser, lr: as the last cycle left them.
        results: of the cycles so far.
        tickets: exported so far.
    """

    model: nn.Module
    architecture: Architecture
    loop: Loop
    folder: RunFolder
    progress: RunProgress
    initial: Mapping[str, Tensor] = field(init=False)
    optimiser: torch.optim.Optimizer | None = None
    lr: float = 0.0
    results: list[CycleResult] = field(default_factory=list)
    tickets: list[Exported] = field(default_factory=list)
    cumulative: Cumulative = field(default_factory=Cumulative)

    def __post_init__(self) -> None:
        self.initial = {name: parameter.detach().clone() for name, parameter in unsearched(self.model).items()}


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
        begin_cycle(session.model, self.cycle, number, session.initial)
        track(session.model)
        loop = session.loop
        if self.cycle.lr == "rewind" or session.optimiser is None:
            session.optimiser = loop.training.optimiser(session.model)
            rates = loop.training.rates(self.cycle.length)
        else:
            rates = [session.lr] * self.epochs(loop.training)
        for lr in rates:
            trained = loop.run_epoch(session.optimiser, lr, session.progress.advance)
            session.lr = lr
            measured = dying(session.model)
            session.progress.show(number, trained, measured)
            session.folder.log(
                "epoch",
                cycle=number,
                epoch=loop.epoch,
                step=loop.step,
                lr=lr,
                loss=trained.loss,
                train_accuracy=trained.accuracy,
                remaining=measured.kept / measured.edges,
                dying=measured.ratio,
            )
        layers = searched_edges(session.model).values()
        result = CycleResult(
            cycle=number,
            rate=self.cycle.remaining if any(not edges.pinned for edges in layers) else measured.kept / measured.edges,
            remaining=measured.kept / measured.edges,
            kept=measured.kept,
            edges=measured.edges,
            loss=trained.loss,
            train_accuracy=trained.accuracy,
            dying=measured.ratio,
            explored=measured.explored,
            apparent=measured.apparent,
            apparent_of_all=measured.apparent_of_all,
            dying_cumulative=session.cumulative.add(session.model).ratio,
            dead_units=dead_units(session.model),
        )
        session.results.append(result)
        session.folder.log("cycle", **{k: v for k, v in asdict(result).items() if v is not None})


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Test accuracy; with `recalibrate`, again after batch-norm statistics were made anew with the present mask."""

    recalibrate: bool = True

    def epochs(self, training: Training) -> int:
        return 0

    def run(self, session: Session) -> None:
        loaded, model = session.loop.loaded, session.model
        with session.loop.autocast():
            measured: dict[str, Any] = {"accuracy": accuracy(model, loaded.test())}
            if self.recalibrate and batch_norms(model):
                recalibrate(model, loaded.calibrate())
                measured["recalibrated"] = accuracy(model, loaded.test())
        if session.results:
            for name, value in measured.items():
                setattr(session.results[-1], name, value)
        session.folder.log("evaluate", cycle=len(session.results), **measured)


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
        path = session.folder.path / self.file
        ticket.save(session.model, path, architecture=session.architecture)
        device = session.loop.device
        reloaded = ticket.load(path, device=device)
        inputs, _ = next(session.loop.loaded.test())
        session.model.eval()
        with torch.no_grad():
            same = torch.equal(session.model(inputs), reloaded(inputs))
        if device.type == "cpu" and not same:
            raise RuntimeError(f"{path}: the reloaded network's logits differ from the searched one's")
        info = ticket.inspect(path)
        with session.loop.autocast():
            reached = accuracy(reloaded, session.loop.loaded.test())
        exported = Exported(
            path=path, bytes=info.file_bytes, dense_bytes=info.dense_bytes, accuracy=reached, same_logits=same
        )
        session.tickets.append(exported)
        session.folder.log("export", **asdict(exported) | {"path": self.file})


def search(cycles: Sequence[Cycle]) -> tuple[Stage, ...]:
    """Each cycle and its evaluation."""
    return tuple(stage for cycle in cycles for stage in (Search(cycle=cycle), Evaluate()))


@torch.no_grad()
def begin_cycle(model: nn.Module, cycle: Cycle, number: int, initial: Mapping[str, Tensor]) -> None:
    """Scores, search space and rate as cycle `number` (from 1) starts with them.

    Batch-norm statistics and whatever is trained besides the scores carry over with inherited scores; with initial or
    fresh ones they start again.

    Args:
        initial: by name, the trained parameters that are not scores, as they were before any training.
    """
    layers = searched_edges(model).values()
    zeroed = cycle.scores.endswith("_masked")
    selected = [unpack(edges.mask(), edges.cols).view(edges.shape) for edges in layers] if zeroed else []
    for edges in layers:
        if cycle.space == "survivors":
            edges.remove_unselected()
        else:
            edges.survivors = None
        if cycle.scores in ("initial", "initial_masked"):
            edges.draw_scores()
        elif cycle.scores == "fresh":
            edges.draw_scores(generation=number - 1)
    for edges, mask in zip(layers, selected, strict=zeroed):
        edges.scores.mul_(mask)
    if not cycle.scores.startswith("inherit"):
        for norm in batch_norms(model):
            norm.reset_running_stats()
        for name, value in initial.items():
            model.get_parameter(name).copy_(value)
    set_remaining(model, cycle.remaining)
