"""What of a network can be masked, and why the rest cannot."""

from collections.abc import Iterator
from itertools import chain

from torch import nn

from supermask.checks import join
from supermask.edges.wrappers import modules_inside
from supermask.networks.foreign import masked_form
from supermask.networks.layers import DENSE_FORMS

_OUT_PROJ = nn.modules.linear.NonDynamicallyQuantizableLinear
"""What nn.MultiheadAttention has for its output projection: a part of it, which reads its tensors."""


def convertible(module: nn.Module) -> bool:
    """Whether `module` has a masked form."""
    return not why_not(module)


def why_not(module: nn.Module) -> str:
    """Why `module` has no masked form, in words; nothing if it has one."""
    kind = type(module).__name__
    if type(module) is nn.MultiheadAttention:
        return _why_not_attention(module)
    if form := masked_form(module):
        return _why_not_plain(module, {"weight", "bias", *form.besides})
    if type(module) is _OUT_PROJ:
        return "the attention layer that it is a part of has no masked form"
    if isinstance(module, tuple(DENSE_FORMS)):
        return f"{kind} is a subclass, whose own forward a masked layer would not run"
    return f"{kind} has no masked form"


def _why_not_attention(module: nn.MultiheadAttention) -> str:
    if module.in_proj_weight is None or module.bias_k is not None:  # no one matrix for query, key and value, or more
        return "MultiheadAttention has no masked form"
    own = _why_not_plain(module, {"in_proj_weight", "in_proj_bias"})
    return own or _why_not_plain(module.out_proj, {"weight", "bias"})


def _why_not_plain(module: nn.Module, own: set[str]) -> str:
    """Why a layer of a kind that has a masked form has none: its tensors are not what its kind has."""
    if "forward" in vars(module):
        return "its forward was set by hand, and a masked layer would not run it"
    parameters = dict(module.named_parameters(recurse=False))
    if missing := sorted(name for name in own if name not in parameters and getattr(module, name, None) is not None):
        return f"its {missing[0]} is made anew by a reparametrisation, such as weight_norm, spectral_norm or prune"
    buffers = [name for name, _ in module.named_buffers(recurse=False)]
    if more := sorted({*parameters, *buffers} - own - {"bias_k", "bias_v"}):
        return f"it has {more[0]} beside what {type(module).__name__} has, which a masked layer would not"
    for name in sorted(own & parameters.keys(), reverse=True):
        if type(tensor := parameters[name]) is not nn.Parameter:
            return f"its {name} is a {type(tensor).__name__}"
        if not tensor.is_floating_point():
            return f"its {name} is {tensor.dtype}, and masked weights are real"
    return ""


def unshaped(model: nn.Module) -> str | None:
    """A tensor of `model` that has no shape, and what to do, in words; None where all have one."""
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            return f"{name} is of a lazy module and has no shape yet: run a batch through the network first"
    return None


def unmade(model: nn.Module) -> str | None:
    """A tensor of `model` that holds no numbers, and what to do, in words; None where all do."""
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_meta:
            return f"{name} is on the meta device, which holds no numbers: build the network on a real one"
    return None


def convertible_layers(model: nn.Module) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Layers that have a masked form, in `named_modules()` order, with the names of the masked layers each becomes."""
    tied = tied_modules(model)
    inside: set[int] = set()
    for name, module in modules_inside(model):
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
    for name, module in modules_inside(model):
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((name, module))
    tied: dict[int, str] = {}
    for shared in owners.values():
        for _, module in shared:
            others = [other for other, owner in shared if owner is not module]
            if others:
                tied[id(module)] = others[0]
    return tied
