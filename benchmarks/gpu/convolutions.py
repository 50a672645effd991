"""The convolutions of ResNet-50 on 224 x 224 images, channels-last, in bfloat16: from bits, and by cuDNN.

Each is the forward of one layer, over as many sets of inputs and bits as keep them out of the cache.
"auto" is what a layer of a ticket does by its rule.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.bench import Bench, Case, Rival
from benchmarks.gpu.drawn import normals, random_bits
from benchmarks.gpu.errors import check_near
from benchmarks.gpu.flags import cudnn_tries
from benchmarks.gpu.floors import Work
from benchmarks.gpu.products import AUTO, CONSTANT, MADE, sets_of
from supermask.edges.packed import PackedEdges
from supermask.kernels.masked_conv2d.op import masked_conv2d
from supermask.kernels.packed_weight.op import packed_weight

__all__ = ["RESNET50", "Convolution", "ConvolutionSizes", "cases"]

CUDNN = "cuDNN"


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A layer and its images."""

    channels: int
    rows: int
    kernel: int
    stride: int
    size: int
    """Height and width of the input."""
    layers: int = 1
    """Of the network that are so."""

    @property
    def name(self) -> str:
        stepping = f", stride {self.stride}" if self.stride > 1 else ""
        return f"{self.channels} to {self.rows}, {self.kernel}x{self.kernel}{stepping}, {self.size}x{self.size}"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows, self.channels, self.kernel, self.kernel

    @property
    def edges(self) -> int:
        return self.rows * self.channels * self.kernel**2

    @property
    def out(self) -> int:
        """Height and width of the output."""
        return -(-self.size // self.stride)

    def least(self, images: int, bits: float) -> Work:
        """Of one that reads `bits` an edge: input and output once, in 16 bits."""
        moved = images * (self.channels * self.size**2 + self.rows * self.out**2)
        return Work(bytes=bits / 8 * self.edges + 2 * moved, operations=2 * images * self.edges * self.out**2)


def _row(channels: int, rows: int, kernel: int, stride: int, size: int, layers: int = 1) -> Convolution:
    return Convolution(channels=channels, rows=rows, kernel=kernel, stride=stride, size=size, layers=layers)


RESNET50 = (
    _row(3, 64, 7, 2, 224),
    _row(64, 64, 1, 1, 56),
    _row(64, 64, 3, 1, 56, 3),
    _row(64, 256, 1, 1, 56, 4),
    _row(256, 64, 1, 1, 56, 2),
    _row(256, 128, 1, 1, 56),
    _row(128, 128, 3, 2, 56),
    _row(128, 512, 1, 1, 28, 4),
    _row(256, 512, 1, 2, 56),
    _row(512, 128, 1, 1, 28, 3),
    _row(128, 128, 3, 1, 28, 3),
    _row(512, 256, 1, 1, 28),
    _row(256, 256, 3, 2, 28),
    _row(256, 1024, 1, 1, 14, 6),
    _row(512, 1024, 1, 2, 28),
    _row(1024, 256, 1, 1, 14, 5),
    _row(256, 256, 3, 1, 14, 5),
    _row(1024, 512, 1, 1, 14),
    _row(512, 512, 3, 2, 14),
    _row(512, 2048, 1, 1, 7, 3),
    _row(1024, 2048, 1, 2, 14),
    _row(2048, 512, 1, 1, 7, 2),
    _row(512, 512, 3, 1, 7, 2),
)


@dataclass(frozen=True, kw_only=True)
class ConvolutionSizes:
    """What is convolved."""

    images: tuple[int, ...] = (64, 1)
    layers: tuple[Convolution, ...] = RESNET50


def _rivals(of: Convolution, images: int, bench: Bench) -> dict[str, Rival]:
    """By name; all checked on two images."""
    device, padding = bench.device, of.kernel // 2
    input_bytes = 2 * images * of.channels * of.size**2
    count = sets_of(input_bytes + of.edges / 8, bench.timer.cache)
    edges = [
        PackedEdges(
            of.shape, random_bits(of.rows, of.edges // of.rows, index, device), seed=index, layer=0,
            weights="signed_constant", constant=CONSTANT, device=device,
        )
        for index in range(count)
    ]  # fmt: skip
    xs = [
        normals(images, of.channels, of.size, of.size, device=device, seed=index).to(
            torch.bfloat16, memory_format=torch.channels_last
        )
        for index in range(count)
    ]

    def made(layer: PackedEdges) -> Tensor:
        weight = packed_weight(layer.packed, layer.shape, layer.theta(), torch.bfloat16)
        return weight.to(memory_format=torch.channels_last)

    def from_bits(x: Tensor, layer: PackedEdges) -> Tensor:
        window: dict[str, Any] = {"stride": of.stride, "padding": padding}
        return masked_conv2d(x, layer.packed, layer.theta(), (of.kernel, of.kernel), **window)

    def dense(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, stride=of.stride, padding=padding)

    def auto(x: Tensor, layer: PackedEdges) -> Tensor:
        return layer.conv2d(x, None, torch.bfloat16, (of.stride,) * 2, (padding,) * 2, (1, 1), 1)

    ways: dict[str, tuple[Callable[[Tensor, Any], Tensor], list[Any], float]] = {
        "masked_conv2d": (from_bits, edges, 1),
        CUDNN: (dense, [made(layer) for layer in edges[: sets_of(input_bytes + 2 * of.edges, bench.timer.cache)]], 16),
        MADE: (lambda x, layer: dense(x, made(layer)), edges, 1 + 32),
        AUTO: (auto, edges, 1),
    }
    truth = dense(xs[0][:2].double(), made(edges[0]).double())
    with cudnn_tries():  # not for float64, which has ways that take seconds
        for name, (way, weights, _) in ways.items():
            check_near(name, way(xs[0], weights[0])[:2], truth)
    return {
        name: Rival(
            calls=[partial(way, x, weight) for x, weight in zip(xs, weights, strict=False)],
            work=of.least(images, bits),
        )
        for name, (way, weights, bits) in ways.items()
    }


def cases(sizes: ConvolutionSizes) -> list[Case]:
    """Every layer, for each number of images."""

    def run(bench: Bench, of: Convolution, images: int) -> dict[str, Any]:
        against = [("masked_conv2d", CUDNN), ("masked_conv2d", MADE), (AUTO, MADE), (AUTO, "masked_conv2d")]
        with torch.no_grad():
            rivals = _rivals(of, images, bench)
            with cudnn_tries():
                return bench.compare(
                    rivals, base=CUDNN, warm=False, against=against, layers=of.layers, images=images,
                    cudnn_benchmark=True,
                )  # fmt: skip

    return [
        Case(name=f"{images} image{'s'[: images > 1]}, {of.name}", run=partial(run, of=of, images=images))
        for images in sizes.images
        for of in sizes.layers
    ]
