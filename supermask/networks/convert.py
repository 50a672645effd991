"""Any nn.Module to its searchable form: linear, convolution and attention layers over searched edges.

What has no masked form keeps its tensors, frozen; `summary` says what was converted and what was left.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Literal

from torch import Tensor, nn

from supermask.checks import check_choice, join
from supermask.edges.base import Edges
from supermask.edges.draws import Magnitude, ScoreInit, WeightInit, kept_count
from supermask.edges.in_model import all_edges
from supermask.edges.searched import SearchedEdges
from supermask.edges.wrappers import COMPILED, modules_inside, wrapped_part
from supermask.networks.allocation import UNIFORM, Allocator
from supermask.networks.attention import SupermaskMultiheadAttention
from supermask.networks.convertible import convertible_layers, unmade, unshaped
from supermask.networks.foreign import masked_form
from supermask.networks.layers import DENSE_FORMS, Bias, MaskedLayer, SupermaskLinear
from supermask.networks.norms import NORMS, NormPolicy, can_be_plain, set_norm
from supermask.networks.patterns import matches
from supermask.networks.rates import share_remaining, warn_of_sparse_layers
from supermask.networks.readers import computed_with
from supermask.networks.summary import summary
from supermask.networks.undo import as_it_was
from supermask.networks.warnings import warn_of_few_masked, warn_of_vanishing

BiasPolicy = Literal["drop", "freeze", "train"]
Make = Callable[..., SearchedEdges]
Build = Callable[[str, Tensor, Tensor | None], tuple[Edges, Bias] | None]
_log = logging.getLogger("supermask")


def convert(
    model: nn.Module,
    seed: int,
    *,
    remaining: float = 0.5,
    allocate: Allocator = UNIFORM,
    overrides: Mapping[str, float] | None = None,
    bias: BiasPolicy = "drop",
    norm: NormPolicy = "non_affine",
    skip: Sequence[str] = (),
    weights: WeightInit | None = None,
    scores: ScoreInit | None = None,
    magnitude: Magnitude | None = None,
    edges: Make = SearchedEdges,
) -> nn.Module:
    """Make `model` searchable, in place; a model that is itself one layer comes back as a new one.

    Linear, convolution (also transposed) and multi-head attention layers become masked layers: `layer` in their counter
    is their index in `named_modules()` order. Every other parameter is frozen, unless a policy below trains it.
    Forward and backward hooks stay with their layers. Biases and norms that a module computes with outside of their
    layer stay, frozen (`summary` names them).

    Args:
        model: any nn.Module, on the device to search on.
        seed: 64 bits, of all weights and initial scores.
        remaining: fraction of the edges each layer keeps, in (0, 1].
        allocate: shares the edges that the network keeps among the layers, where not each keeps that fraction.
        overrides: rate by layer name or shell pattern, kept when the network's rate changes; {"fc": 1.0} keeps the
            output layer of a ResNet whole, as does {"last": 1.0}, of any network. Of several that match, the last one
            counts; what is a layer's name is neither "first", "last" nor a pattern.
        bias: "drop" the biases of masked layers (EP), "freeze" them as they are, or "train" them.
        norm: make normalisation "non_affine" (EP), or "freeze" or "train" its scale and shift.
        skip: layers to leave as they are, likewise.
        weights, scores, magnitude: as in `SearchedEdges`; by default those of `edges`.
        edges: makes the edges of a layer, of the arguments of `SearchedEdges`: a method's, such as IteRand().edges.

    Raises:
        ValueError: nothing to convert, a network that is masked already, wrapped or not made yet, a pattern that
            matches no layer, or a bad value. The model is then as it was.
    """
    overrides = dict(overrides or {})
    check_choice("bias", bias, BiasPolicy)
    check_choice("norm", norm, NormPolicy)
    names = _check(model, remaining, overrides, skip)
    read = computed_with(model)
    layers = count()
    given = {"weights": weights, "scores": scores, "magnitude": magnitude}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    def build(name: str, weight: Tensor, dense_bias: Tensor | None) -> tuple[Edges, Bias] | None:
        matching = [pattern for pattern in (*skip, *overrides) if matches(name, pattern, names)]
        if any(pattern in skip for pattern in matching):
            return None
        made = edges(
            tuple(weight.shape),
            seed=seed,
            layer=next(layers),
            remaining=overrides[matching[-1]] if matching else remaining,
            pinned=bool(matching),
            device=weight.device,
            **chosen,
        )
        if dense_bias is None or (bias == "drop" and join(name, "bias") not in read):
            return made, None
        return made, dense_bias if bias == "train" else dense_bias.detach().clone()

    with as_it_was(model):
        converted = replace_layers(model, build)
        _train_only(converted, bias, norm, read)
        share_remaining(converted, remaining, allocate)
        warn_of_sparse_layers(converted)  # which raise where the caller makes errors of warnings
        warn_of_few_masked(converted)
        warn_of_vanishing(converted)
    if _log.isEnabledFor(logging.INFO):
        _log.info("%s", summary(converted))
    return converted


def _check(model: nn.Module, remaining: float, overrides: Mapping[str, float], skip: Sequence[str]) -> list[str]:
    """The names of the layers that are going to be masked."""
    if not isinstance(model, nn.Module) or isinstance(skip, str):
        raise TypeError(f"model is {type(model).__name__}, skip {skip!r}: expected an nn.Module and a list of names")
    for rate in (remaining, *overrides.values()):
        kept_count(rate, 1)
    if part := wrapped_part(model):
        raise ValueError(
            f"{type(model).__name__} wraps a network: convert the one inside, its .{part}, and wrap it afterwards"
        )
    if wrong := unshaped(model) or unmade(model):
        raise ValueError(f"{type(model).__name__}: {wrong}")
    if masked := all_edges(model):
        raise ValueError(
            f"{type(model).__name__} already has masked layers: {', '.join(masked)}; convert a dense network"
        )
    names = [name for _, parts in convertible_layers(model) for name in parts]
    unused = [p for p in (*overrides, *skip) if not any(matches(name, p, names) for name in names)]
    if unused:
        raise ValueError(f"no masked layer matches {unused}: the layers are {', '.join(names)}")
    return names


def _train_only(converted: nn.Module, bias: BiasPolicy, norm: NormPolicy, read: Mapping[str, str]) -> None:
    """Freeze all but the scores and what the policies train; what edges train, whoever made them has said."""
    for name, module in modules_inside(converted):
        if isinstance(module, SearchedEdges):
            continue
        trained = isinstance(module, MaskedLayer) and bias == "train"
        for part, parameter in module.named_parameters(recurse=False):
            parameter.requires_grad_(trained and part == "bias")
        if isinstance(module, NORMS):
            needed = {join(name, "weight"), join(name, "bias")} & read.keys() or not can_be_plain(module)
            set_norm(module, "freeze" if norm == "non_affine" and needed else norm)


def replace_layers(model: nn.Module, build: Build) -> nn.Module:
    """Replace the layers of `model` that have a masked form, in `named_modules()` order.

    Args:
        build: called with a layer's name, dense weight and bias; returns its edges and bias, or None to leave it.

    Raises:
        ValueError: no layer was replaced; `model` is then as it was.
    """
    replaced: dict[int, nn.Module] = {}
    for module, names in convertible_layers(model):
        if isinstance(module, nn.MultiheadAttention):
            new = _attention(names, module, build)
        else:
            dense: Any = module
            form: Any = masked_form(module)
            built = build(names[0], dense.weight.T if form.turned else dense.weight, dense.bias)
            new = None if built is None else form.from_dense(dense, *built)
        if new is not None:
            replaced[id(module)] = _in_place_of(module, new)
    if not replaced:
        kinds = ", ".join(kind.__name__ for kind in (*DENSE_FORMS, nn.MultiheadAttention))
        raise ValueError(
            f"{type(model).__name__} has no layer to convert: the kinds that have a masked form are {kinds}"
        )
    _put_in_place(model, replaced)
    return replaced.get(id(model), model)


def _put_in_place(model: nn.Module, replaced: Mapping[int, nn.Module]) -> None:
    """Have every module of `model` hold the new layers, by id of the old."""
    places = [(*name.rpartition("."), m) for name, m in model.named_modules(remove_duplicate=False) if name]
    for parent, _, child, module in places:
        if id(module) in replaced and child == COMPILED:  # a forward that is bound to the layer it was made of
            raise ValueError(
                f"layer {parent!r} is compiled by itself, and goes on computing with what it was: compile it afterwards"
            )
    for parent, _, child, module in places:
        if id(module) in replaced:
            setattr(model.get_submodule(parent), child, replaced[id(module)])
    own = vars(nn.Module())  # torch's, where submodules and hooks are
    for module in model.modules():
        for name, held in list(vars(module).items()):
            if name not in own and (new := _with_replaced(held, replaced)) is not held:
                setattr(module, name, new)
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # that path hands dense projection weights to a fused kernel


def _with_replaced(held: Any, replaced: Mapping[int, nn.Module]) -> Any:
    """A plain list, tuple or dict that a module has beside its submodules, with the new layers; the same one where it
    has none of the old."""
    if isinstance(held, nn.Module):
        return replaced.get(id(held), held)
    if isinstance(held, dict):
        found = {key: _with_replaced(one, replaced) for key, one in held.items()}
        changed = any(found[key] is not held[key] for key in held)
        return type(held)(found) if changed else held
    if not isinstance(held, list | tuple | deque):
        return held
    new = [_with_replaced(one, replaced) for one in held]
    if all(a is b for a, b in zip(new, held, strict=True)):
        return held
    return type(held)(*new) if hasattr(held, "_fields") else type(held)(new)  # a namedtuple's are arguments


def _in_place_of(dense: nn.Module, new: nn.Module) -> nn.Module:
    """`new`, in the mode of `dense` and with its hooks on forward and backward."""
    hooks = {name: held for name, held in vars(dense).items() if name.startswith(("_forward_", "_backward_"))}
    vars(new).update(hooks)
    if hooks:
        new._is_full_backward_hook = dense._is_full_backward_hook
    return new.train(dense.training)


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
