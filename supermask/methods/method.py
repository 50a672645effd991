"""A method: how edges are made, in which order cycles follow, how one begins, and what happens in the loop.

`Method` is what edge-popup and its iterations need; another overrides what it does in its own way. It keeps its state
in buffers of its edges, so that checkpoints, resuming and tickets need no line of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from supermask.data.base import Data
from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import one_selection
from supermask.kernels.base.bits import unpack
from supermask.later import Grown, settings
from supermask.methods.cycles import Cycle
from supermask.networks.rates import set_remaining, share_remaining
from supermask.training.evaluate import batch_norms
from supermask.training.hooks import Hooks
from supermask.training.schedules import Rate
from supermask.training.training import Training


@dataclass(frozen=True, kw_only=True, repr=False)
class Method(Grown, Hooks):
    """What makes one search another; every default is edge-popup's.

    Attributes:
        choices: arguments of `SearchedEdges` that a conversion leaves to the method.
        paper: where it is from.
    """

    choices: ClassVar[Mapping[str, Any]] = {
        "weights": "signed_constant",
        "scores": "kaiming_uniform",
        "magnitude": "abs",
    }
    paper: ClassVar[str] = "Ramanujan et al. 2020"
    called: ClassVar[tuple[str, ...]] = (
        *Hooks.called, "phases", "edges", "data", "schedule", "optimiser", "begin", "begin_epoch"
    )  # fmt: skip

    def phases(self) -> tuple[Cycle, ...]:
        """The cycles, in order; runs/ makes stages of them."""
        raise ValueError(
            f"{type(self).__name__} has no cycles of its own: give a recipe stages=, or a method= with some"
        )

    def edges(self, shape: Sequence[int], **given: Any) -> SearchedEdges:
        """The edges of one layer.

        Args:
            shape: of the weight.
            given: of `SearchedEdges`: seed, layer, remaining, pinned, device, and what a conversion chooses.
        """
        return SearchedEdges(shape, **{**self.choices, **given})

    def data(self, data: Data, cycle: Cycle) -> Data:
        """What `cycle` trains and is evaluated on, where it is not the data of the recipe."""
        return data

    def schedule(self, training: Training, cycle: Cycle, last: float | None) -> Sequence[Rate]:
        """The learning rate of each epoch of `cycle`: a number, or `StepRates` where each step has its own.

        Args:
            last: the one applied last before the cycle; None in the first.
        """
        if cycle.lr == "final":
            return [training.lr if last is None else last] * cycle.epochs(training.epochs)
        return training.rates(cycle.length)[cycle.rewind_to or 0 :]

    def optimiser(self, model: nn.Module, training: Training, cycle: Cycle) -> torch.optim.Optimizer:
        """A fresh optimiser of all that `cycle` trains of `model`; the loop sets its learning rate.

        Asked for where a cycle begins that rewinds the learning rate, and again where a run goes on that was stopped
        since. So `requires_grad_` is said here and not in `begin`, of everything that any cycle of the method trains.
        """
        return training.make_optimiser(model)

    @torch.no_grad()
    def begin(self, model: nn.Module, cycle: Cycle, number: int, initial: Mapping[str, Tensor]) -> None:
        """Scores, search space and rate as cycle `number` (from 1) starts with them.

        Batch-norm statistics and whatever is trained besides the scores carry over with inherited scores; with initial
        or fresh ones they start again.

        Args:
            initial: by name, the trained parameters that are not scores, as they were before any training.
        """
        layers = searched_edges(model).values()
        with one_selection(model):
            masks = [edges.mask() for edges in layers]
        for edges, selected in zip(layers, masks, strict=True):
            edges.survivors = selected if cycle.space == "survivors" else None
            if cycle.scores != "inherit":
                edges.draw_scores(generation=number - 1 if cycle.scores == "fresh" else 0)
            if cycle.unselected == "zero":
                edges.scores.mul_(unpack(selected, edges.cols).view(edges.shape))
        if cycle.scores != "inherit":
            for norm in batch_norms(model):
                norm.reset_running_stats()
            for name, value in initial.items():
                model.get_parameter(name).copy_(value)
        if cycle.remaining is not None:
            set_remaining(model, cycle.remaining, cycle.allocate)

    @torch.no_grad()
    def begin_epoch(self, model: nn.Module, cycle: Cycle, epoch: int, epochs: int) -> None:
        """The rate of epoch `epoch`, from 0, of a cycle of that many; where a run goes on within it, not again."""
        rate = cycle.rate(epoch, epochs)
        if cycle.anneal != "none" and rate is not None:
            share_remaining(model, rate, cycle.allocate)

    def settings(self) -> dict[str, Any]:
        """What a run's configuration says of the method beside its phases; nothing where these say it all."""
        if self.is_phases(Method):
            return {}
        return {"type": f"{type(self).__module__}.{type(self).__qualname__}", **settings(self)}

    def is_phases(self, plain: type["Method"]) -> bool:
        """Whether it overrides nothing of `plain`, a class whose searches are their phases."""
        own = ("choices", "whole_gradients", *(name for name in Method.called if name != "phases"))
        return all(getattr(type(self), name) is getattr(plain, name) for name in own)


EDGE_POPUP = Method()


def check_unrated(method: Method, chosen: Mapping[str, Any]) -> None:
    """Refuse what only a rate gives a meaning to, where a method has none.

    Raises:
        ValueError: a layer with a rate of its own, or a constant that follows the rate.
    """
    name = type(method).__name__
    if chosen.get("pinned"):
        raise ValueError(
            f"a layer with a rate of its own, {chosen['remaining']:g}: {name} selects at no fixed rate; skip it, or "
            "leave it as the others are"
        )
    if chosen["weights"] == "scaled_signed_constant":
        raise ValueError(f"weights='scaled_signed_constant' follow a rate, and {name} has none: take 'signed_constant'")
