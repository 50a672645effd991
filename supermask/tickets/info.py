"""What a ticket holds, in numbers: its planes, layers, tensors, and the whole."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from supermask.checks import join
from supermask.edges.draws import WeightInit
from supermask.edges.stored import coat_names
from supermask.kernels.base.bits import words_per_row
from supermask.networks.architecture import Architecture
from supermask.tickets.coding.levels import Grid
from supermask.tickets.coding.planes import Encoding
from supermask.tickets.container import DTYPES

__all__ = ["Layer", "LayerInfo", "PlaneInfo", "TensorInfo", "TicketInfo"]


@dataclass(frozen=True, kw_only=True)
class PlaneInfo:
    """Bits of a layer.

    Attributes:
        bits: how many there are.
        kept: how many are set.
        encoding: how they are stored.
        bytes: that they take.
    """

    bits: int
    kept: int
    encoding: Encoding
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One masked layer, but for its planes.

    Attributes:
        name: in the network.
        index: third word of its counter.
        shape: of the weight.
        weights: distribution of theta0.
        generation: how many times theta0 was re-drawn.
        values: by name (supermask/tickets/names.py).
    """

    name: str
    index: int
    shape: tuple[int, ...]
    weights: WeightInit
    generation: int
    values: Mapping[str, float]

    @property
    def edges(self) -> int:
        return math.prod(self.shape)

    @property
    def constant(self) -> float:
        """Magnitude of theta0."""
        return self.values["constant"]

    def grid(self, seed: int) -> Grid:
        """Where its edges lie."""
        return Grid(shape=self.shape, seed=seed, layer=self.index)

    def tensor(self, plane: str) -> str:
        """The name of the tensor that holds a plane."""
        return join(self.name, plane)

    def filed(self, planes: Mapping[str, PlaneInfo]) -> "LayerInfo":
        """It in a file with these planes."""
        return LayerInfo(
            name=self.name, index=self.index, shape=self.shape, weights=self.weights, generation=self.generation,
            values=self.values, planes=planes,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LayerInfo(Layer):
    """One masked layer of a ticket, and how its planes lie in the file.

    Attributes:
        planes: by name, in the order in which they are read (supermask/tickets/names.py).
    """

    planes: Mapping[str, PlaneInfo]

    @property
    def kept(self) -> int:
        """Edges that the mask selects."""
        return self.planes["mask"].kept

    @property
    def coats(self) -> list[PlaneInfo]:
        """The nested masks."""
        return [self.planes[name] for name in coat_names(len(self.planes)) if name in self.planes]

    @property
    def selected(self) -> str:
        """Edges of each coat, and how many of them are flipped."""
        flipped = f", {self.planes['flips'].kept:,} flipped" if "flips" in self.planes else ""
        return " > ".join(f"{coat.kept:,}" for coat in self.coats) + flipped

    @property
    def held(self) -> int:
        """Bits of its planes in memory, where rows are padded (kernels/base/bits.py)."""
        return 32 * self.shape[0] * words_per_row(math.prod(self.shape[1:])) * len(self.planes)

    @property
    def bytes(self) -> int:
        """That its planes take."""
        return sum(plane.bytes for plane in self.planes.values())

    @property
    def entropy(self) -> float:
        """Bits of its planes, were each bit drawn alone at its plane's density."""
        return sum(entropy(plane.kept, plane.bits) for plane in self.planes.values())

    @property
    def encoding(self) -> str:
        """Of its planes."""
        return "+".join(sorted({plane.encoding for plane in self.planes.values()}))


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One tensor of a ticket that is no plane; dtype as safetensors calls it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, kw_only=True)
class TicketInfo:
    """What a ticket holds.

    Attributes:
        path: of the file, as errors name it.
        layers: masked, in the file's order.
        tensors: those that are no planes.
        folded: batch norms stored as a scale and a shift.
        narrowed: whether float32 tensors are stored in bfloat16.
        file_bytes: of the whole file.
    """

    path: str
    version: int
    seed: int
    architecture: Architecture | None
    layers: tuple[LayerInfo, ...]
    tensors: tuple[TensorInfo, ...]
    folded: tuple[str, ...]
    narrowed: bool
    file_bytes: int
    sha256: str

    @property
    def edges(self) -> int:
        return sum(layer.edges for layer in self.layers)

    @property
    def kept(self) -> int:
        return sum(layer.kept for layer in self.layers)

    @property
    def plane_bytes(self) -> int:
        """Of all planes."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def entropy(self) -> float:
        """Bits of all planes at their densities."""
        return sum(layer.entropy for layer in self.layers)

    @property
    def dense_bytes(self) -> int:
        """Of the same network with four bytes an edge, and its other tensors as they are."""
        return 4 * self.edges + sum(tensor.bytes for tensor in self.tensors)

    @property
    def bits_per_edge(self) -> float:
        """The whole file, over the edges."""
        return 8 * self.file_bytes / self.edges

    @property
    def summary(self) -> list[str]:
        """What the file is beside its layers, a line a fact."""
        others = sum(tensor.bytes for tensor in self.tensors)
        stored = [f"{len(self.folded)} batch norms folded"] if self.folded else []
        stored += ["float32 stored as bfloat16"] if self.narrowed else []
        return [
            f"version {self.version}, seed {self.seed}, {self.architecture or 'no architecture'}",
            f"other tensors: {len(self.tensors)}, {others:,} bytes" + "".join(f", {how}" for how in stored),
            f"file: {self.file_bytes:,} bytes, {self.bits_per_edge:.3f} bits an edge; dense float32: "
            f"{self.dense_bytes:,} bytes, {self.dense_bytes / self.file_bytes:.1f} times as many",
            f"sha256: {self.sha256}",
        ]

    def __str__(self) -> str:
        width = max(len(layer.name) for layer in self.layers)
        about, *rest = self.summary
        layers = [
            f"  {layer.name:{width}}  layer {layer.index} {layer.shape}  {layer.selected} of {layer.edges:,} "
            f"{layer.kept / layer.edges:7.2%}  {layer.weights} {layer.constant:.4g}, "
            f"generation {layer.generation}, {layer.bytes:,} bytes {layer.encoding}"
            for layer in self.layers
        ]
        masked = f"masked: {len(self.layers)} layers, {self.kept:,} of {self.edges:,} edges kept"
        return "\n".join([f"{self.path}: ticket, {about}", masked, *layers, *rest])


def entropy(kept: int, bits: int) -> float:
    """Bits that a plane of `bits` bits takes, `kept` of them set, each drawn alone at its density."""
    return sum(part * math.log2(bits / part) for part in (kept, bits - kept) if part)
