"""The optimisers of `Training`, by name or of the user's own making, over all that a network trains."""

import inspect
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from supermask.edges.searched import SearchedEdges
from supermask.training.score_sgd import ScoreSGD
from supermask.training.sgdw import SGDW

if TYPE_CHECKING:
    from supermask.training.training import Training

OptimiserName = Literal["sgd", "adam", "adamw", "sgdw"]
OwnOptimiser = Callable[[nn.Module, Any], torch.optim.Optimizer]
"""An optimiser of all that a network trains, of the network and the Training."""

READS = {
    "sgd": ("momentum", "nesterov"),
    "adam": ("betas", "eps"),
    "adamw": ("betas", "eps"),
    "sgdw": ("momentum",),
}
"""Fields of Training that each reads, beside lr and weight_decay."""

MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2, "sgdw": 1}
"""Tensors that each keeps of one that it trains, of the same size."""


def made(training: "Training", model: nn.Module) -> torch.optim.Optimizer:
    """A fresh optimiser of all that `model` trains.

    Raises:
        TypeError, ValueError: one of the user's own that is no optimiser, or not of what the network trains.
    """
    if not isinstance(training.optimiser, str):
        optimiser = training.optimiser(model, training)
        check_own(optimiser, model, f"{called(training.optimiser)} gave")
        return optimiser
    decay: dict[str, Any] = {"lr": training.lr, "weight_decay": training.weight_decay}
    if training.optimiser == "sgd":
        sgd = {**decay, "momentum": training.momentum, "nesterov": training.nesterov}
        return ScoreSGD(model, **sgd) if scores_of(model) else torch.optim.SGD(decaying(model), **sgd)
    groups = decaying(model)
    if training.optimiser == "sgdw":
        return SGDW(groups, **decay, momentum=training.momentum)
    kind = torch.optim.Adam if training.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, **decay, betas=training.betas, eps=training.eps, fused=_fused(groups))


def decaying(model: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups of what `model` trains: of a network that is searched the scores decay, and nothing else does;
    of any other all does."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    scores = set(map(id, scores_of(model)))
    if not scores:
        return [{"params": trained}]
    groups: list[dict[str, Any]] = [{"params": [p for p in trained if id(p) in scores]}]
    if others := [parameter for parameter in trained if id(parameter) not in scores]:
        groups.append({"params": others, "weight_decay": 0.0})
    return groups


def scores_of(model: nn.Module) -> list[nn.Parameter]:
    """The scores of the layers that are searched; none of a network that is not."""
    return [module.scores for module in model.modules() if isinstance(module, SearchedEdges)]


def check_own(optimiser: object, model: nn.Module, given: str) -> None:
    """Raise unless `optimiser` steps everything that `model` trains once, at one rate, and needs nothing for it.

    Args:
        given: who gave it, for the error.
    """
    if not isinstance(optimiser, torch.optim.Optimizer):
        raise TypeError(f"{given} {type(optimiser).__name__}: expected a torch.optim.Optimizer")
    given = f"{given} {type(optimiser).__name__}, which"
    if needed := [one.name for one in _arguments(optimiser.step) if one.default is one.empty]:
        raise TypeError(
            f"{given} needs {', '.join(needed)} for a step, and the loop calls step() alone, with the gradients there: "
            "choose another optimiser, or give this one by a method's `optimiser` and step it in the method's `step`"
        )
    counts = Counter(id(parameter) for group in optimiser.param_groups for parameter in group["params"])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    for place, name in names.items():
        if place in trained and not counts[place]:
            raise ValueError(f"{given} does not step {name}: give it all parameters with requires_grad")
        if counts[place] > 1:
            raise ValueError(f"{given} has {name} {counts[place]} times: give it each parameter once")
    foreign = sum(place not in names for place in counts)
    if foreign:
        raise ValueError(
            f"{given} steps {foreign} tensors that are no parameters of the network, and no checkpoint would hold: "
            "make them parameters of it"
        )
    if len(rates := {float(group["lr"]) for group in optimiser.param_groups}) > 1:
        raise ValueError(
            f"{given} has groups of the learning rates {sorted(rates)}: a run has one, which the schedule sets; give "
            "all groups the same"
        )


def _arguments(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Those that a function has by name or place; none of one that does not say."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [one for one in found if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


def _fused(groups: list[dict[str, Any]]) -> bool | None:
    """Whether one launch can step all of it; None leaves the way to torch."""
    every = [parameter for group in groups for parameter in group["params"]]
    served = all(type(p) in (nn.Parameter, Tensor) and p.device.type in ("cpu", "cuda") for p in every)
    return True if every and served and all(p.is_floating_point() for p in every) else None


def called(choice: str | Callable[..., Any]) -> str:
    """The name of a choice, or of code in its place."""
    return choice if isinstance(choice, str) else f"{getattr(choice, '__qualname__', type(choice).__qualname__)}()"
