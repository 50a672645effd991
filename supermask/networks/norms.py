"""Normalisation layers: which modules are some, and what becomes of their scale and shift."""

import copy
from collections.abc import Iterator
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm

NormPolicy = Literal["non_affine", "freeze", "train"]

# What batch norms have in common, and these with instance norms, are classes without a public name: where torch has
# them under another, a user's own subclasses of them are taken for no normalisation.
BATCH_NORMS: tuple[type[nn.Module], ...] = (
    getattr(batchnorm, "_BatchNorm", nn.BatchNorm1d),
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
)
NORMS: tuple[type[nn.Module], ...] = (
    getattr(batchnorm, "_NormBase", nn.BatchNorm1d),
    *BATCH_NORMS,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


def is_batch_norm(module: object) -> TypeGuard[nn.BatchNorm1d]:
    """Whether `module` is a batch norm, of any number of dimensions; one stands for all of them in the types."""
    return isinstance(module, BATCH_NORMS)


def set_norm(module: nn.Module, norm: NormPolicy) -> None:
    """Apply `norm` to the scale and shift of one normalisation layer."""
    if norm == "non_affine":
        for name in ("weight", "bias"):
            if name in module._parameters:
                module.register_parameter(name, None)
        for flag in ("affine", "elementwise_affine"):
            if hasattr(module, flag):
                setattr(module, flag, False)
    else:
        for parameter in module.parameters():
            parameter.requires_grad_(norm == "train")


def can_be_plain(module: nn.Module) -> bool:
    """Whether a normalisation layer computes without scale and shift what it does with 1 and 0.

    Torch's own do. A subclass with a forward of its own is tried: it may read them otherwise than as torch does.
    """
    if "forward" in vars(module):  # set by hand, and who knows what it reads
        return False
    forward = type(module).forward
    if forward.__module__.startswith("torch."):
        return True
    for x in _inputs(module):
        try:
            neutral = _computed(module, x, affine=True)
        except Exception:  # it takes inputs of another shape
            continue
        try:
            return torch.allclose(neutral, _computed(module, x, affine=False), rtol=1e-4, atol=1e-5)
        except Exception:  # whatever its forward does with what is not there
            return False
    return False


def _computed(module: nn.Module, x: Tensor, *, affine: bool) -> Tensor:
    """What `module` would make of `x` in eval mode with a scale of 1 and a shift of 0, or without."""
    copied: Any = copy.deepcopy(module).eval()
    if not affine:
        set_norm(copied, "non_affine")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for name, value in copied.named_parameters(recurse=False):
            value.fill_(1.0 if name == "weight" else 0.0)
        found: Tensor = type(copied).forward(copied, x)  # without hooks
    return found


def _inputs(module: Any) -> Iterator[Tensor]:
    """Inputs of the shapes that a normalisation layer may take."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        last = tuple(module.normalized_shape)
        shapes = [(2, *last), (2, 3, *last), *([(2, last[0], 4, 4), (2, 4, 4, last[0])] if len(last) == 1 else [])]
    else:
        channels = module.num_channels if isinstance(module, nn.GroupNorm) else module.num_features
        shapes = [(2, channels, 4, 4), (2, channels, 4), (2, channels), (2, channels, 2, 4, 4)]
    for shape in shapes:
        like = next(module.parameters(), torch.empty(0))
        x = torch.linspace(-1, 2, torch.Size(shape).numel(), dtype=torch.float64).view(shape)
        yield x.to(like.device, like.dtype)
