"""Small methods whose courses go beyond cycles of edge-popup, as a user would write them: what the seam has to carry.

They are made of public parts alone, and none is meant to find anything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from supermask.data.base import Batch, Data, Loaded, in_memory
from supermask.edges.in_model import searched_edges
from supermask.edges.rules import GlobalTopKept
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import one_selection
from supermask.edges.stored import NotStorable, Stored
from supermask.kernels.base.bits import unpack
from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import EP
from supermask.methods.iep import IEP
from supermask.methods.method import Method
from supermask.training.training import Training


@dataclass(frozen=True, kw_only=True, repr=False)
class Tune(Cycle):
    """A phase that trains the weights under the mask that was found."""

    lr_tuned: float = 0.05


class TunedEdges(SearchedEdges):
    """Edges that a search selects, and whose weights are trained afterwards: those of the draw until then."""

    weight: nn.Parameter

    def __init__(self, shape: Sequence[int], **given: Any) -> None:
        super().__init__(shape, **given)
        ones = torch.ones(self.rows, self.cols)
        signs = torch.where(unpack(self.signs, self.cols), -ones, ones) if self.signs is not None else ones
        self.weight = nn.Parameter(signs * self.constant, requires_grad=False)

    def forward(self, dtype: torch.dtype = torch.float32, *, record: bool = True) -> Tensor:
        made = super().forward(dtype, record=record)
        if not self.weight.requires_grad:
            return made
        return (self.weight * unpack(self.mask(), self.cols)).view(self.shape).to(dtype)

    def stored(self) -> Stored:
        if self.weight.requires_grad:
            raise NotStorable("its weights were trained")
        return super().stored()


@dataclass(frozen=True, kw_only=True)
class Tuning(EP):
    """Edge-popup, then the weights trained under its mask: how Gem-Miner ends."""

    def phases(self) -> tuple[Cycle, ...]:
        return (*super().phases(), Tune(remaining=self.remaining, scores="inherit"))

    def edges(self, shape: Sequence[int], **given: Any) -> SearchedEdges:
        return TunedEdges(shape, **given)

    def schedule(self, training: Training, cycle: Cycle, last: float | None) -> list[float]:
        rates = super().schedule(training, cycle, last)
        return [cycle.lr_tuned] * len(rates) if isinstance(cycle, Tune) else rates

    def optimiser(self, model: nn.Module, training: Training, cycle: Cycle) -> torch.optim.Optimizer:
        tunes = isinstance(cycle, Tune)
        for edges in searched_edges(model).values():
            assert isinstance(edges, TunedEdges)
            edges.scores.requires_grad_(not tunes)
            edges.weight.requires_grad_(tunes)
        if not tunes:
            return super().optimiser(model, training, cycle)
        return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=cycle.lr_tuned, momentum=0.9)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Points of two classes, others for each task: the even tasks have more."""

    batch: int = 16
    task: int = 0

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        count = 48 if self.task % 2 else 80
        x = torch.randn(count + 32, 20, generator=torch.Generator().manual_seed(self.task))
        y = (x[:, self.task] > 0).long()
        x, y = x.to(device), y.to(device)
        return in_memory(x[:count], y[:count], x[count:], y[count:], batch=self.batch, seed=seed, at_once=32)


@dataclass(frozen=True, kw_only=True, repr=False)
class Task(Cycle):
    """A search on the data of one task."""

    task: int = 0


@dataclass(frozen=True, kw_only=True)
class Tasks(EP):
    """A task after the other, scores inherited: a course whose phases have data of their own."""

    tasks: int = 3

    def phases(self) -> tuple[Cycle, ...]:
        first = Task(remaining=self.remaining)
        return tuple(replace(first, task=task, scores="inherit" if task else "initial") for task in range(self.tasks))

    def data(self, data: Data, cycle: Cycle) -> Data:
        assert isinstance(data, Shares)
        assert isinstance(cycle, Task)
        return replace(data, task=cycle.task) if cycle.task else data


class OwnWeights(SearchedEdges):
    """Edges whose scores are their weights, trained; `early` are those of the epoch to come back to."""

    early: Tensor

    def __init__(self, shape: Sequence[int], **given: Any) -> None:
        super().__init__(shape, **{**given, "rule": GlobalTopKept()})
        self.register_buffer("early", self.scores.detach().clone())

    def forward(self, dtype: torch.dtype = torch.float32, *, record: bool = True) -> Tensor:
        super().forward(dtype, record=record)
        return (self.scores * unpack(self.mask(), self.cols).view(self.shape)).to(dtype)

    def stored(self) -> Stored:
        raise NotStorable("its weights are trained")


@dataclass(frozen=True, kw_only=True)
class Magnitudes(Method):
    """Iterative magnitude pruning over all layers, rewound to the end of an epoch."""

    levels: int = 3
    rewind_to: int = 1

    def phases(self) -> tuple[Cycle, ...]:
        dense = Cycle(remaining=1.0)
        level: dict[str, Any] = {"scores": "inherit", "space": "survivors", "rewind_to": self.rewind_to}
        return (dense, *(Cycle(remaining=0.8**number, **level) for number in range(1, self.levels)))

    def edges(self, shape: Sequence[int], **given: Any) -> SearchedEdges:
        return OwnWeights(shape, **{**self.choices, **given})

    def optimiser(self, model: nn.Module, training: Training, cycle: Cycle) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=training.lr, momentum=training.momentum)

    def begin(self, model: nn.Module, cycle: Cycle, number: int, initial: Mapping[str, Tensor]) -> None:
        layers = [edges for edges in searched_edges(model).values() if isinstance(edges, OwnWeights)]
        if number > 1:
            for edges in layers:
                edges.remaining = cycle.remaining or 1.0
            with one_selection(model):
                masks = [edges.mask() for edges in layers]
            for edges, mask in zip(layers, masks, strict=True):
                edges.survivors = mask
                edges.scores.copy_(edges.early)

    def end_epoch(self, model: nn.Module, epoch: int) -> None:
        if epoch == self.rewind_to:
            for edges in searched_edges(model).values():
                assert isinstance(edges, OwnWeights)
                edges.early.copy_(edges.scores)


@dataclass(frozen=True, kw_only=True)
class Moments(EP):
    """A loss that has no logits: the outputs are to have unit variance, whatever the labels."""

    whole_gradients: ClassVar[bool] = False

    def loss(
        self, model: nn.Module, network: Callable[[Tensor], Tensor], batch: Batch, label_smoothing: float
    ) -> tuple[Tensor, None]:
        return (network(batch[0]).var(0) - 1).square().mean(), None

    def evaluate(self, model: nn.Module, accuracy: Callable[[], float]) -> Mapping[str, float]:
        outputs = model.eval()(torch.randn(64, 20, generator=torch.Generator().manual_seed(1)))
        return {"variance": float(outputs.var(0).mean())}


@dataclass(frozen=True, kw_only=True)
class Draws(EP):
    """Several looks at the network, each through its own draw: how a sampled mask is evaluated."""

    draws: int = 4

    def evaluate(self, model: nn.Module, accuracy: Callable[[], float]) -> Mapping[str, float]:
        found = []
        layers = [edges for edges in model.modules() if isinstance(edges, SearchedEdges)]
        scores = [edges.scores.clone() for edges in layers]
        for draw in range(self.draws):
            generator = torch.Generator().manual_seed(draw)
            for edges, own in zip(layers, scores, strict=True):
                edges.scores.copy_(own + 0.02 * torch.randn(own.shape, generator=generator))
            found.append(accuracy())
        for edges, own in zip(layers, scores, strict=True):
            edges.scores.copy_(own)
        return {"accuracy": sum(found) / len(found), "spread": max(found) - min(found)}


@dataclass(frozen=True, kw_only=True)
class Falling(IEP):
    """Soft iEP with fine-tuning by Adam, whose rates fall from those of the cycle before."""

    def schedule(self, training: Training, cycle: Cycle, last: float | None) -> list[float]:
        begin = 0.1 if last is None else last
        return [begin * 0.9**epoch for epoch in range(cycle.epochs(training.epochs))]

    def optimiser(self, model: nn.Module, training: Training, cycle: Cycle) -> torch.optim.Optimizer:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        kind = torch.optim.Adam if cycle.scores == "initial" else torch.optim.SGD
        return kind(trained, lr=training.lr)
