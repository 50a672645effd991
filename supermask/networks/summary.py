"""What `convert` did to a network, layer by layer, and what it left and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from supermask.checks import join
from supermask.edges.base import Edges
from supermask.edges.in_model import owned_edges
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import selected_edges
from supermask.edges.wrappers import modules_inside
from supermask.networks.convertible import tied_modules, why_not
from supermask.networks.layers import MaskedLayer
from supermask.networks.norms import NORMS, can_be_plain
from supermask.networks.readers import computed_with


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
    kept = selected_edges(model)
    layers = [
        LayerSummary(
            name=name,
            kind=type(owner).__name__,
            shape=edges.shape,
            edges=edges.count,
            kept=kept[name],
            pinned=edges.pinned,
        )
        for name, (owner, edges) in owned_edges(model).items()
        if isinstance(edges, SearchedEdges)
    ]
    return Summary(layers=tuple(layers), left=tuple(left_tensors(model)))


def left_tensors(model: nn.Module) -> Iterator[LeftTensor]:
    """Parameters that are no scores, and biases that a masked layer has because they are read elsewhere."""
    tied, read = tied_modules(model), computed_with(model)
    attention: dict[int, nn.Module] = {}
    for owner_name, owner in modules_inside(model):
        if isinstance(owner, Edges):
            continue
        if isinstance(owner, nn.MultiheadAttention):
            attention[id(owner.out_proj)] = owner
        found: dict[str, Tensor] = dict(owner.named_parameters(recurse=False))
        if isinstance(owner, MaskedLayer) and owner.bias is not None and join(owner_name, "bias") in read:
            found["bias"] = owner.bias
        for name, tensor in found.items():
            full = join(owner_name, name)
            reason = _why_left(attention.get(id(owner), owner), name, tied)
            if full in read and isinstance(owner, (*NORMS, MaskedLayer)):
                reason = f"{reason}, which {read[full]} computes with"
            yield LeftTensor(name=full, shape=tuple(tensor.shape), trained=tensor.requires_grad, reason=reason)


def _why_left(owner: nn.Module, name: str, tied: Mapping[int, str]) -> str:
    if id(owner) in tied:
        return f"its weight is shared with {tied[id(owner)]}"
    if isinstance(owner, NORMS):
        needed = "" if can_be_plain(owner) else f", without which the forward of {type(owner).__name__} does not do"
        return f"scale or shift of a normalisation{needed}"
    if isinstance(owner, MaskedLayer):
        return f"{name} of a masked layer"
    return why_not(owner) or "skipped"
