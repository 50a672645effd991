"""Normalisation layers: which modules are some, and what becomes of their scale and shift."""

from typing import Literal, TypeGuard

from torch import nn
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
