"""What a network is made of, found in one walk: places for masked layers, normalisation, tensors and their names."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from supermask.checks import join
from supermask.edges.base import Edges
from supermask.edges.in_model import layer_of
from supermask.edges.wrappers import modules_inside, names_inside, unwrapped
from supermask.networks.convertible import convertible
from supermask.networks.foreign import masked_form
from supermask.networks.layers import MaskedLayer
from supermask.networks.norms import NORMS, is_batch_norm

__all__ = ["Anatomy", "BatchNorm", "Norm", "Slot", "carve"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """A place for a masked layer.

    Attributes:
        shape: of the weight.
        outputs: length of a bias; 0 where there is no place for one.
        weight, bias: names of the dense tensors whose place it takes; "" where it is masked already.
        turned: the dense weight is [in, out], and `shape` is [out, in].
        edges: those that are there, where it is masked.
        owner: the module that has them; None where they are the whole model.
    """

    shape: tuple[int, ...]
    outputs: int = 0
    weight: str = ""
    bias: str = ""
    turned: bool = False
    edges: Edges | None = None
    owner: nn.Module | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm:
    """A normalisation layer.

    Attributes:
        names: of its tensors in the state dict, by their names in it.
    """

    module: nn.Module
    names: Mapping[str, str]

    @property
    def affine(self) -> set[str]:
        """Names in the state dict of its scale and shift, where it has them."""
        return {self.names[part] for part in ("weight", "bias") if part in self.names}


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchNorm(Norm):
    """A batch norm with running statistics: in eval mode it is one scale and one shift a channel.

    Attributes:
        mean, variance: its statistics.
        weight, bias: its own scale and shift, if it has them.
    """

    mean: Tensor
    variance: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Anatomy:
    """What a network is made of. Every tensor with several names goes by the first.

    Attributes:
        model: the network, without what it is wrapped in.
        slots: places for masked layers, by the names that those have.
        norms: normalisation layers, by name.
        tensors: those of the state dict that are not of edges, by name.
        first: of every name of them in the state dict, the first name of the same tensor.
        odd: entries of the state dict that are no dense tensors.
    """

    model: nn.Module
    slots: Mapping[str, Slot]
    norms: Mapping[str, Norm]
    tensors: Mapping[str, Tensor]
    first: Mapping[str, str]
    odd: tuple[str, ...]

    @property
    def edges(self) -> dict[str, Edges]:
        """Of the masked layers, by name."""
        return {name: slot.edges for name, slot in self.slots.items() if slot.edges is not None}

    @property
    def batch_norms(self) -> dict[str, BatchNorm]:
        """Those that are a scale and a shift in eval mode, by name."""
        return {name: norm for name, norm in self.norms.items() if isinstance(norm, BatchNorm)}


def carve(model: nn.Module) -> Anatomy:
    """What `model` is made of, at this moment; names are those without wrappers."""
    model = unwrapped(model)
    every, inside = list(modules_inside(model, remove_duplicate=False)), names_inside(model)
    firsts: dict[int, tuple[str, nn.Module]] = {}
    for name, module in every:
        firsts.setdefault(id(module), (name, module))
    modules = dict(firsts.values())
    of_edges = tuple(join(name, "") for name, module in every if isinstance(module, Edges))
    state: dict[str, Any] = {inside(name): value for name, value in model.state_dict(keep_vars=True).items()}
    seen: dict[int, str] = {}
    first = {name: seen.setdefault(id(v), name) for name, v in state.items() if not name.startswith(of_edges)}
    owned: dict[str, dict[str, str]] = defaultdict(dict)
    for name in state:
        owner, _, own = name.rpartition(".")
        owned[owner][own] = name
    return Anatomy(
        model=model,
        slots=dict(_slots(modules)),
        norms={name: _norm(module, owned[name]) for name, module in modules.items() if isinstance(module, NORMS)},
        tensors={name: state[name] for name in seen.values()},
        first=first,
        odd=tuple(name for name, value in state.items() if not _is_dense(value)),
    )


def _slots(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, Slot]]:
    """The places for masked layers among the modules of a network, by name."""
    uses = Counter(id(parameter) for module in modules.values() for parameter in module.parameters(recurse=False))
    for name, module in modules.items():
        if isinstance(module, MaskedLayer):
            edges, bias = module.edges, join(name, "bias")
            yield name, Slot(shape=edges.shape, outputs=module.outputs, bias=bias, edges=edges, owner=module)
        elif isinstance(module, Edges):
            owner = modules[name.rpartition(".")[0]] if name else None
            if not isinstance(owner, MaskedLayer):
                yield layer_of(name), Slot(shape=module.shape, edges=module, owner=owner)
        elif convertible(module) and all(uses[id(parameter)] == 1 for parameter in module.parameters(recurse=False)):
            yield from _dense_slots(name, module)


def _dense_slots(name: str, module: Any) -> Iterator[tuple[str, Slot]]:
    """The places that a layer with a masked form has."""
    if isinstance(module, nn.MultiheadAttention):
        size = module.embed_dim
        for part, outputs, joint in (("in_proj", 3 * size, "_"), ("out_proj", size, ".")):
            full = join(name, part)
            weight, bias = f"{full}{joint}weight", f"{full}{joint}bias"
            yield full, Slot(shape=(outputs, size), outputs=outputs, weight=weight, bias=bias)
    else:
        form = masked_form(module)
        turned, shape = form is not None and form.turned, tuple(module.weight.shape)
        outputs = module.out_channels if hasattr(module, "out_channels") else shape[turned]
        weight, bias = join(name, "weight"), join(name, "bias")
        shape = shape[::-1] if turned else shape
        yield name, Slot(shape=shape, outputs=outputs, weight=weight, bias=bias, turned=turned)


def _norm(module: nn.Module, names: Mapping[str, str]) -> Norm:
    if not is_batch_norm(module) or module.running_mean is None:
        return Norm(module=module, names=names)
    variance: Any = module.running_var
    return BatchNorm(
        module=module, names=names, mean=module.running_mean, variance=variance, weight=module.weight,
        bias=module.bias, eps=module.eps,
    )  # fmt: skip


def _is_dense(value: Any) -> bool:
    """Whether `value` is a plain tensor: one of a class of its own may be a part of one, or stand for one."""
    return type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided
