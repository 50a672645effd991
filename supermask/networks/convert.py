"""Any nn.Module to its searchable form: linear, convolution and attention layers over searched edges.

What has no masked form keeps its tensors, frozen; `summary` says what was converted and what was left.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import count
from typing import Any, Literal

from torch import Tensor, nn

from supermask.checks import check_choice
from supermask.edges.base import Edges
from supermask.edges.draws import Magnitude, ScoreInit, WeightInit, kept_count
from supermask.edges.in_model import all_edges
from supermask.edges.searched import SearchedEdges
from supermask.networks.attention import SupermaskMultiheadAttention
from supermask.networks.convertible import convertible_layers
from supermask.networks.layers import DENSE_FORMS, Bias, MaskedLayer, SupermaskLinear
from supermask.networks.norms import NORMS, NormPolicy, set_norm
from supermask.networks.rates import warn_of_sparse_layers
from supermask.networks.summary import summary

BiasPolicy = Literal["drop", "freeze", "train"]
Make = Callable[..., SearchedEdges]
Build = Callable[[str, Tensor, Tensor | None], tuple[Edges, Bias] | None]
_log = logging.getLogger("supermask")


def convert(
    model: nn.Module,
    seed: int,
    *,
    remaining: float = 0.5,
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
        weights, scores, magnitude: as in `SearchedEdges`; by default those of `edges`.
        edges: makes the edges of a layer, of the arguments of `SearchedEdges`: a method's, such as IteRand().edges.

    Raises:
        ValueError: nothing to convert, a network that is masked already, a pattern that matches no layer, or a bad
            value. The model is then as it was.
    """
    overrides = dict(overrides or {})
    check_choice("bias", bias, BiasPolicy)
    check_choice("norm", norm, NormPolicy)
    _check(model, remaining, overrides, skip)
    layers = count()
    given = {"weights": weights, "scores": scores, "magnitude": magnitude}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    def build(name: str, weight: Tensor, dense_bias: Tensor | None) -> tuple[Edges, Bias] | None:
        matching = [pattern for pattern in (*skip, *overrides) if fnmatchcase(name, pattern)]
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
        if dense_bias is None or bias == "drop":
            return made, None
        return made, dense_bias if bias == "train" else dense_bias.detach().clone()

    converted = replace_layers(model, build)
    _train_only(converted, bias, norm)
    warn_of_sparse_layers(converted)
    if _log.isEnabledFor(logging.INFO):
        _log.info("%s", summary(converted))
    return converted


def _check(model: nn.Module, remaining: float, overrides: Mapping[str, float], skip: Sequence[str]) -> None:
    if not isinstance(model, nn.Module) or isinstance(skip, str):
        raise TypeError(f"model is {type(model).__name__}, skip {skip!r}: expected an nn.Module and a list of names")
    for rate in (remaining, *overrides.values()):
        kept_count(rate, 1)
    if masked := all_edges(model):
        raise ValueError(
            f"{type(model).__name__} already has masked layers: {', '.join(masked)}; convert a dense network"
        )
    names = [name for _, parts in convertible_layers(model) for name in parts]
    unused = [p for p in (*overrides, *skip) if not any(fnmatchcase(name, p) for name in names)]
    if unused:
        raise ValueError(f"no masked layer matches {unused}: the layers are {', '.join(names)}")


def _train_only(converted: nn.Module, bias: BiasPolicy, norm: NormPolicy) -> None:
    """Freeze all but the scores and what the policies train; what edges train, whoever made them has said."""
    for module in converted.modules():
        if isinstance(module, SearchedEdges):
            continue
        trained = isinstance(module, MaskedLayer) and bias == "train"
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(trained)
        if isinstance(module, NORMS):
            set_norm(module, norm)


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
