"""What in a converted network makes its search less than it seems, told when it is converted."""

import warnings
from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn

from supermask.checks import SearchWarning, join
from supermask.edges.base import Edges
from supermask.edges.in_model import all_edges
from supermask.edges.wrappers import modules_inside, names_inside
from supermask.networks.norms import NORMS
from supermask.networks.summary import left_tensors

_LEAST_MASKED = 0.25  # of the parameters; of torchvision's classifiers it is 0.98 and more
_TINY = 1e-2  # a scale of a branch below it leaves next to nothing of the branch
_SCALES = ("scale", "gamma", "gain", "alpha", "lambda")  # that can be zero, where others are added


def warn_of_few_masked(model: nn.Module) -> None:
    """Warn, in the name of whoever called the caller, of a network that is hardly masked."""
    masked = sum(edges.count for edges in all_edges(model).values())
    left: Counter[str] = Counter()
    inside = names_inside(model)
    once = {inside(name) for name, _ in model.named_parameters()}  # of a tensor with several names, the first
    for tensor in left_tensors(model):
        if tensor.reason != "skipped" and tensor.name in once:
            left[tensor.reason] += torch.Size(tensor.shape).numel()
    share = masked / (masked + left.total())
    if share < _LEAST_MASKED:
        reasons = "; ".join(f"{count:,}: {reason}" for reason, count in left.most_common(3))
        warnings.warn(
            f"{share:.2%} of the parameters of {type(model).__name__} are masked, {masked:,} of "
            f"{masked + left.total():,}: a search has little to choose from, and a ticket holds the rest as it is. "
            f"Left are {reasons}. supermask.summary names each",
            SearchWarning,
            stacklevel=3,
        )


def warn_of_vanishing(model: nn.Module) -> None:
    """Warn, in the name of whoever called the caller, of frozen scales that leave nothing of their branches."""
    found = [f"{name} is {value:g}" for name, value in _vanishing(model)]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        warnings.warn(
            f"{', '.join(found[:3])}{more} everywhere, and frozen: what it scales adds next to nothing, and masks "
            "in it hardly matter; fill it with ones before convert, or train it: requires_grad_() after",
            SearchWarning,
            stacklevel=3,
        )


def _vanishing(model: nn.Module) -> Iterator[tuple[str, float]]:
    """Frozen parameters that look like the scale of a branch near zero: of one value, small, and, where it is zero, as
    what is added may be, called a scale."""
    for owner, module in modules_inside(model):
        if isinstance(module, Edges | nn.Embedding):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad or not parameter.numel() or not parameter.is_floating_point():
                continue
            value = float(parameter.flatten()[0])
            called = any(word in name for word in _SCALES) or (name == "weight" and type(module) in NORMS)
            if abs(value) <= _TINY and (value or called) and bool((parameter == value).all()):
                yield join(owner, name), value
