"""How much two masks have in common, against what two independent ones would.

The overlap of masks a and b is |a and b| / min(|a|, |b|): 1 where one contains the other. For independent masks of n
edges its expected value is max(|a|, |b|) / n, the density of the denser one. Layers are masked independently, so the
expected overlap of whole networks adds up the layers' expected common edges.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from supermask.columns import data_frame
from supermask.kernels.base.bits import bits_of, check_words, count_bits

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Edges that two masks have in common.

    Attributes:
        a, b: edges that each selects.
        common: edges that both select.
        expected_common: edges that both would select, if they were independent.
    """

    a: int
    b: int
    common: int
    expected_common: float

    @property
    def ratio(self) -> float:
        """|a and b| / min(|a|, |b|); NaN where a mask is empty."""
        return self._of_smaller(self.common)

    @property
    def expected(self) -> float:
        """`ratio` to be expected of independent masks."""
        return self._of_smaller(self.expected_common)

    def _of_smaller(self, common: float) -> float:
        smaller = min(self.a, self.b)
        return common / smaller if smaller else math.nan


@dataclass(frozen=True, kw_only=True)
class NetworkOverlap:
    """Overlap of two networks' masks, by layer and in all."""

    layers: Mapping[str, Overlap]
    total: Overlap

    @property
    def ratio(self) -> float:
        """Common edges over those of the smaller mask, in all layers."""
        return self.total.ratio

    @property
    def expected(self) -> float:
        """`ratio` to be expected of masks that are independent in every layer."""
        return self.total.expected

    def frame(self) -> "DataFrame":
        """A pandas DataFrame of one row a layer: edges of each mask, common and expected ones, ratios.

        Raises:
            NotInstalled: there is no pandas.
        """
        columns: dict[str, type | None] = {"layer": str, "a": int, "b": int, "common": int}
        columns |= dict.fromkeys(("expected_common", "ratio", "expected"), float)
        rows = [
            {"layer": name} | {column: getattr(layer, column) for column in columns if column != "layer"}
            for name, layer in self.layers.items()
        ]
        return data_frame(rows, columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """Masks of a network.

    Attributes:
        name: in errors.
        bits: packed int32 [rows, words_per_row(cols)], by layer.
        cols: columns, by layer.
        shapes: of the weights, outputs first, by layer; rows x cols where a layer has none.
    """

    name: str
    bits: Mapping[str, Tensor]
    cols: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for layer, bits in self.bits.items():
            if layer not in self.cols:
                raise ValueError(f"{self.name}: layer {layer!r} has no number of columns")
            try:
                check_words(f"{self.name}: layer {layer!r}", bits, self.cols[layer])
            except RuntimeError as error:
                raise ValueError(str(error)) from error
            rows, cols = bits.shape[0], self.cols[layer]
            shape = self.shapes.get(layer, (rows, cols))
            if shape[:1] != (rows,) or math.prod(shape[1:]) != cols:
                raise ValueError(f"{self.name}: layer {layer!r}: {shape} is not the shape of {rows} x {cols} edges")

    def arrays(self) -> dict[str, NDArray[np.bool_]]:
        """By layer, True where an edge is selected, in the shape of the layer's weight."""
        found = {}
        for layer, bits in self.bits.items():
            dense = bits_of(bits.cpu(), self.cols[layer]).view(np.bool_)
            found[layer] = dense.reshape(self.shapes.get(layer, dense.shape))
        return found


def packed_overlap(a: Tensor, b: Tensor, cols: int) -> Overlap:
    """Overlap of two packed masks of one layer.

    Args:
        a, b: int32 [rows, words_per_row(cols)].
        cols: columns of the layer's weight.

    Raises:
        ValueError: they are not packed bits of the same rows and columns.
    """
    check_words("a", a, cols)
    check_words("b", b, cols, rows=a.shape[0])
    selected = [count_bits(bits.cpu()) for bits in (a, b, a & b)]
    edges = a.shape[0] * cols
    return Overlap(
        a=selected[0],
        b=selected[1],
        common=selected[2],
        expected_common=selected[0] * selected[1] / edges if edges else 0.0,
    )


def overlap(a: Masks, b: Masks) -> NetworkOverlap:
    """Overlap of the masks of two networks.

    Raises:
        ValueError: they mask different networks; the message names the first layer that differs.
    """
    for layer in dict.fromkeys((*a.bits, *b.bits)):
        for one, other in ((a, b), (b, a)):
            if layer not in one.bits:
                raise ValueError(f"{one.name} has no layer {layer!r}, and {other.name} has: of different networks")
        sizes = [(masks.bits[layer].shape[0], masks.cols[layer]) for masks in (a, b)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"layer {layer!r} is {sizes[0][0]} x {sizes[0][1]} in {a.name} and {sizes[1][0]} x {sizes[1][1]} in "
                f"{b.name}: of different networks"
            )
    layers = {layer: packed_overlap(a.bits[layer], b.bits[layer], a.cols[layer]) for layer in a.bits}
    return NetworkOverlap(layers=layers, total=_sum(list(layers.values())))


def _sum(layers: Sequence[Overlap]) -> Overlap:
    return Overlap(
        a=sum(layer.a for layer in layers),
        b=sum(layer.b for layer in layers),
        common=sum(layer.common for layer in layers),
        expected_common=sum(layer.expected_common for layer in layers),
    )
