"""What of a network can be masked, and what becomes of its normalisation."""

from collections.abc import Iterator
from typing import Literal

from torch import nn

from supermask.networks.layers import DENSE_FORMS

NormPolicy = Literal["non_affine", "freeze", "train"]


NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def convertible(module: nn.Module) -> bool:
    """Whether `module` is of a kind that has a masked form; a subclass with a forward of its own is not."""
    if type(module) is nn.MultiheadAttention:
        return bool(module._qkv_same_embed_dim) and module.bias_k is None
    return type(module) in DENSE_FORMS


def _convertible_layers(model: nn.Module) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Layers that have a masked form, in `named_modules()` order, with the names of the masked layers each becomes."""
    tied = _tied(model)
    inside: set[int] = set()
    for name, module in model.named_modules():
        if id(module) in inside or not convertible(module) or id(module) in tied:
            continue
        if isinstance(module, nn.MultiheadAttention):
            inside.update(map(id, module.modules()))
            yield module, (f"{name}.in_proj".lstrip("."), f"{name}.out_proj".lstrip("."))
        else:
            yield module, (name,)


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


def _tied(model: nn.Module) -> dict[int, str]:
    """Modules whose weight is also another module's, by id, with the name of the other."""
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((name, module))
    tied: dict[int, str] = {}
    for shared in owners.values():
        for _, module in shared:
            others = [other for other, owner in shared if owner is not module]
            if others:
                tied[id(module)] = others[0]
    return tied
