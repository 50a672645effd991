"""Any nn.Module to its searchable form: linear, convolution and attention layers over searched edges.

What has no masked form keeps its tensors, frozen; `summary` says what was converted and what was left.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import Tensor, nn

from supermask.draws import Magnitude, ScoreInit, WeightInit, check_choice, kept_count
from supermask.edges import Edges, SearchedEdges
from supermask.layers import DENSE_FORMS, Bias, MaskedLayer, SupermaskLinear, SupermaskMultiheadAttention
from supermask.selection import all_edges, searched_edges

BiasPolicy = Literal["drop", "freeze", "train"]
NormPolicy = Literal["non_affine", "freeze", "train"]
Build = Callable[[str, Tensor, Tensor | None], tuple[Edges, Bias] | None]

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_log = logging.getLogger("supermask")


class SparseLayerWarning(UserWarning):
    """A layer keeps fewer edges than it has outputs, so some outputs have no input at all."""


def convert(
    model: nn.Module,
    seed: int,
    *,
    remaining: float = 0.5,
    overrides: Mapping[str, float] | None = None,
    bias: BiasPolicy = "drop",
    norm: NormPolicy = "non_affine",
    skip: Sequence[str] = (),
    weights: WeightInit = "signed_constant",
    scores: ScoreInit = "kaiming_uniform",
    magnitude: Magnitude = "abs",
) -> nn.Module:
    """Make `model` searchable, in place; a model that is itself one layer comes back as a new one.

    Linear, convolution (also transposed) and multi-head attention layers become masked layers: `layer` in their counter
    is their index in `named_modules()` order. Every other parameter is frozen, unless a policy below trains it.
    Hooks on replaced layers are not carried over.

    Args:
        model: any nn.Module, on the device to search on.
        seed: 64 bits, of all weights and initial scores.
        remaining: fraction of the edges each layer keeps, in (0, 1].
        overrides: rate by layer name or shell pattern, kept when the network's rate changes; {"fc": 1.0} keeps the
            output layer of a ResNet whole. Of several that match, the last one counts.
        bias: "drop" the biases of masked layers (EP), "freeze" them as they are, or "train" them.
        norm: make normalisation "non_affine" (EP), or "freeze" or "train" its scale and shift.
        skip: layer names or patterns to leave as they are.
        weights, scores, magnitude: as in `SearchedEdges`.

    Raises:
        ValueError: nothing to convert, a network that is masked already, a pattern that matches no layer, or a bad
            value. The model is then as it was.
    """
    if not isinstance(model, nn.Module) or isinstance(skip, str):
        raise TypeError(f"model is {type(model).__name__}, skip {skip!r}: expected an nn.Module and a list of names")
    check_choice("bias", bias, BiasPolicy)
    check_choice("norm", norm, NormPolicy)
    overrides = dict(overrides or {})
    for rate in (remaining, *overrides.values()):
        kept_count(rate, 1)
    if masked := all_edges(model):
        raise ValueError(
            f"{type(model).__name__} already has masked layers: {', '.join(masked)}; convert a dense network"
        )
    names = [name for _, parts in _convertible_layers(model) for name in parts]
    unused = [p for p in (*overrides, *skip) if not any(fnmatchcase(name, p) for name in names)]
    if unused:
        raise ValueError(f"no masked layer matches {unused}: the layers are {', '.join(names)}")
    index = 0

    def build(name: str, weight: Tensor, dense_bias: Tensor | None) -> tuple[Edges, Bias] | None:
        nonlocal index
        matching = [pattern for pattern in (*skip, *overrides) if fnmatchcase(name, pattern)]
        if any(pattern in skip for pattern in matching):
            return None
        edges = SearchedEdges(
            tuple(weight.shape),
            seed=seed,
            layer=index,
            remaining=overrides[matching[-1]] if matching else remaining,
            weights=weights,
            scores=scores,
            magnitude=magnitude,
            pinned=bool(matching),
            device=weight.device,
        )
        index += 1
        if dense_bias is None or bias == "drop":
            return edges, None
        return edges, dense_bias if bias == "train" else dense_bias.detach().clone()

    converted = replace_layers(model, build)
    for module in converted.modules():
        trained = isinstance(module, SearchedEdges) or (isinstance(module, MaskedLayer) and bias == "train")
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(trained)
        if isinstance(module, NORMS):
            set_norm(module, norm)
    _warn_sparse(converted)
    _log.info("%s", summary(converted))
    return converted


def replace_layers(model: nn.Module, build: Build) -> nn.Module:
    """Replace the layers of `model` that have a masked form, in `named_modules()` order.

    Args:
        build: called with a layer's name, dense weight and bias; returns its edges and bias, or None to leave it.

    Raises:
        ValueError: no layer was replaced; `model` is then as it was.
    """
    replaced: dict[int, nn.Module] = {}
    for module, names in _convertible_layers(model):
        if isinstance(module, nn.MultiheadAttention):
            new = _attention(names, module, build)
        else:
            dense: Any = module
            built = build(names[0], dense.weight, dense.bias)
            new = None if built is None else DENSE_FORMS[type(module)].from_dense(dense, *built)
        if new is not None:
            replaced[id(module)] = new.train(module.training)
    if not replaced:
        kinds = ", ".join(kind.__name__ for kind in (*DENSE_FORMS, nn.MultiheadAttention))
        raise ValueError(
            f"{type(model).__name__} has no layer to convert: the kinds that have a masked form are {kinds}"
        )
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if id(module) in replaced and name:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, replaced[id(module)])
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # that path hands dense projection weights to a fused kernel
    return replaced.get(id(model), model)


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


def set_remaining(model: nn.Module, remaining: float) -> None:
    """Set the rate of every searched layer that is not pinned; warn of layers that keep too few edges.

    Raises:
        ValueError: a rate outside (0, 1], or more edges than hard pruning left.
    """
    layers = [edges for edges in searched_edges(model).values() if not edges.pinned]
    for edges in layers:  # all are checked before any is changed
        edges.check_remaining(remaining)
    for edges in layers:
        edges.remaining = remaining
    _warn_sparse(model)


@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One masked layer: its name, kind, weight shape, edges and how many of them are kept."""

    name: str
    kind: str
    shape: tuple[int, ...]
    edges: int
    kept: int
    pinned: bool


@dataclass(frozen=True, kw_only=True)
class LeftTensor:
    """One parameter that is not masked: its name, shape, whether it is trained, and why it was left."""

    name: str
    shape: tuple[int, ...]
    trained: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What of a network is searched and what is not."""

    layers: tuple[LayerSummary, ...]
    left: tuple[LeftTensor, ...]

    @property
    def edges(self) -> int:
        return sum(layer.edges for layer in self.layers)

    @property
    def kept(self) -> int:
        return sum(layer.kept for layer in self.layers)

    def __str__(self) -> str:
        width = max(len(layer.name) for layer in self.layers)
        lines = [f"searched: {len(self.layers)} layers, {self.kept:,} of {self.edges:,} edges kept"]
        for layer in self.layers:
            rate = f"{layer.kept / layer.edges:7.2%}{' pinned' if layer.pinned else ''}"
            lines.append(
                f"  {layer.name:{width}}  {layer.kind} {layer.shape}  {layer.kept:,} of {layer.edges:,} {rate}"
            )
        lines.append(f"left: {len(self.left)} parameters" + (":" if self.left else ""))
        for left in self.left:
            state = "trained" if left.trained else "frozen"
            lines.append(f"  {left.name} {left.shape} {state}: {left.reason}")
        return "\n".join(lines)


def summary(model: nn.Module) -> Summary:
    """What of `model` is searched, and which parameters are not and why.

    Raises:
        ValueError: no searched layer.
    """
    layers = [
        LayerSummary(
            name=name,
            kind=type(model.get_submodule(name)).__name__,
            shape=edges.shape,
            edges=edges.count,
            kept=int(edges.kept),
            pinned=edges.pinned,
        )
        for name, edges in searched_edges(model).items()
    ]
    tied = _tied(model)
    left = []
    for owner_name, owner in model.named_modules():
        if isinstance(owner, Edges):
            continue
        for name, parameter in owner.named_parameters(recurse=False):
            left.append(
                LeftTensor(
                    name=f"{owner_name}.{name}".lstrip("."),
                    shape=tuple(parameter.shape),
                    trained=parameter.requires_grad,
                    reason=_why_left(owner, name, tied),
                )
            )
    return Summary(layers=tuple(layers), left=tuple(left))


def _attention(names: tuple[str, ...], dense: nn.MultiheadAttention, build: Build) -> nn.Module | None:
    in_weight: Any = dense.in_proj_weight
    into = build(names[0], in_weight, dense.in_proj_bias)
    out = build(names[1], dense.out_proj.weight, dense.out_proj.bias)
    if into is None and out is None:
        return None
    if into is None or out is None:
        name = names[0].removesuffix("in_proj").rstrip(".")
        raise ValueError(f"{name}: in_proj and out_proj of an attention layer are skipped together or not at all")
    size = dense.embed_dim
    return SupermaskMultiheadAttention(
        dense,
        SupermaskLinear(size, 3 * size, into[1], edges=into[0]),
        SupermaskLinear(size, size, out[1], edges=out[0]),
    )


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


def _why_left(owner: nn.Module, name: str, tied: Mapping[int, str]) -> str:
    kind = type(owner).__name__
    if id(owner) in tied:
        return f"its weight is shared with {tied[id(owner)]}"
    if isinstance(owner, NORMS):
        return "scale or shift of a normalisation"
    if isinstance(owner, MaskedLayer):
        return f"{name} of a masked layer"
    if convertible(owner) or isinstance(owner, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "skipped"
    if isinstance(owner, tuple(DENSE_FORMS)):
        return f"{kind} is a subclass, whose own forward a masked layer would not run"
    return f"{kind} has no masked form"


def _warn_sparse(model: nn.Module) -> None:
    starved = []
    for name, edges in searched_edges(model).items():
        outputs = getattr(model.get_submodule(name), "outputs", edges.rows)
        if int(edges.kept) < outputs:
            starved.append(f"{name} keeps {int(edges.kept)} of {edges.count} edges for {outputs} outputs")
    if starved:
        warnings.warn(
            f"{'; '.join(starved)}: outputs without an input are constant; raise the rate of these layers with "
            "overrides",
            SparseLayerWarning,
            stacklevel=3,
        )


def trained_parameters(model: nn.Module) -> list[Tensor]:
    """What the optimiser moves: the scores, and biases and normalisation where a policy trains them."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
