"""What `convert` did to a network, layer by layer, and what it left and why."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from supermask.checks import join
from supermask.edges.base import Edges
from supermask.edges.in_model import searched_edges
from supermask.edges.selection import selected_edges
from supermask.networks.convertible import convertible, tied_modules
from supermask.networks.layers import DENSE_FORMS, MaskedLayer
from supermask.networks.norms import NORMS


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
            kind=type(model.get_submodule(name)).__name__,
            shape=edges.shape,
            edges=edges.count,
            kept=kept[name],
            pinned=edges.pinned,
        )
        for name, edges in searched_edges(model).items()
    ]
    tied = tied_modules(model)
    left = []
    for owner_name, owner in model.named_modules():
        if isinstance(owner, Edges):
            continue
        for name, parameter in owner.named_parameters(recurse=False):
            left.append(
                LeftTensor(
                    name=join(owner_name, name),
                    shape=tuple(parameter.shape),
                    trained=parameter.requires_grad,
                    reason=_why_left(owner, name, tied),
                )
            )
    return Summary(layers=tuple(layers), left=tuple(left))


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
