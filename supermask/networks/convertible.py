"""What of a network can be masked."""

from collections.abc import Iterator

from torch import nn

from supermask.checks import join
from supermask.networks.layers import DENSE_FORMS


def convertible(module: nn.Module) -> bool:
    """Whether `module` is of a kind that has a masked form; a subclass with a forward of its own is not."""
    if type(module) is nn.MultiheadAttention:
        return module.in_proj_weight is not None and module.bias_k is None  # one matrix for query, key and value
    return type(module) in DENSE_FORMS


def convertible_layers(model: nn.Module) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Layers that have a masked form, in `named_modules()` order, with the names of the masked layers each becomes."""
    tied = tied_modules(model)
    inside: set[int] = set()
    for name, module in model.named_modules():
        if id(module) in inside or not convertible(module) or id(module) in tied:
            continue
        if isinstance(module, nn.MultiheadAttention):
            inside.update(map(id, module.modules()))
            yield module, (join(name, "in_proj"), join(name, "out_proj"))
        else:
            yield module, (name,)


def tied_modules(model: nn.Module) -> dict[int, str]:
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
