"""Kernels at the shapes that sizes are tuned for, over as many sets of inputs as keep them out of the cache."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.convolutions import Convolution
from benchmarks.gpu.drawn import normals, random_bits
from benchmarks.gpu.products import CONSTANT, sets_of
from benchmarks.gpu.selection import NETWORKS, SGD, Shapes
from benchmarks.threshold import scores_of
from supermask.kernels.base import edge_tile
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.sizes import Sizes
from supermask.kernels.base.theta import Theta
from supermask.kernels.masked_conv2d import sizes as conv_sizes
from supermask.kernels.masked_conv2d.op import masked_conv2d
from supermask.kernels.masked_mm import sizes as mm_sizes
from supermask.kernels.masked_mm.op import masked_mm
from supermask.kernels.packed_weight.op import packed_weight
from supermask.kernels.score_step import sizes as step_sizes
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from supermask.kernels.select import sizes as select_sizes
from supermask.kernels.select.op import select
from supermask.kernels.subnet.op import subnet

__all__ = ["Call", "Problem", "TuneSizes", "problems"]

Call = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A kernel at one shape.

    Attributes:
        table: of the kernel.
        when: the case of the table that the shape is.
        make: puts the inputs on the device and returns what is timed: the same over so many sets of them that none is
            in a cache of so many bytes when its turn comes again.
        exact: the result is the same to the bit whatever the sizes.
    """

    name: str
    table: Sizes
    when: Mapping[str, int | bool]
    make: Callable[[torch.device, int], list[Call]]
    exact: bool = True


@dataclass(frozen=True, kw_only=True)
class TuneSizes:
    """What is tuned for."""

    widths: tuple[int, ...] = (8192, 4096)
    rows: tuple[int, ...] = (1, 8, 64, 4096)
    convolutions: tuple[Convolution, ...] = (
        Convolution(channels=64, rows=64, kernel=3, stride=1, size=56),
        Convolution(channels=256, rows=64, kernel=1, stride=1, size=56),
        Convolution(channels=512, rows=512, kernel=3, stride=1, size=7),
    )
    images: int = 64
    scores: tuple[tuple[str, Shapes], ...] = tuple(NETWORKS.items())
    weight: tuple[int, int] = (2048, 4608)


def problems(sizes: TuneSizes) -> Iterator[Problem]:
    """Every kernel at its shapes."""
    for width in sizes.widths:
        for rows in sizes.rows:
            for backward in (False, True):
                yield Problem(
                    name=f"masked_mm{', backward' if backward else ''}, {rows} rows of {width} x {width}",
                    table=mm_sizes.SIZES,
                    when={"exact": False, "single": False, "several": False, "transposed": backward, "rows": rows},
                    make=partial(_product, width, rows, backward),
                    exact=False,
                )
    for of in sizes.convolutions:
        yield Problem(
            name=f"masked_conv2d, {sizes.images} images, {of.name}",
            table=conv_sizes.SIZES,
            when={"scattered": False, "wide": False, "exact": False, "natural": of.kernel == 1},
            make=partial(_convolution, of, sizes.images),
            exact=False,
        )
    for network, shapes in sizes.scores:
        about = {"make": partial(_selection, shapes), "when": {}}
        yield Problem(name=f"select, {network}", table=select_sizes.SIZES, **about)
        about["make"] = partial(_step, shapes)
        yield Problem(name=f"score_step, {network}", table=step_sizes.SIZES, **about)
    for name, make in (("packed_weight", _made), ("subnet", _selected)):
        when = {"cols": sizes.weight[1]}
        yield Problem(name=name, table=edge_tile.SIZES, when=when, make=partial(make, sizes.weight))


def _count(size: float, cache: int) -> int:
    """Sets of inputs of `size` bytes; one of what alone drives itself out of the cache."""
    return sets_of(size, cache) if size < 4 * cache else 1


def _theta(device: torch.device, index: int) -> Theta:
    return Theta(7, index, 0, torch.tensor([CONSTANT], device=device))


def _product(width: int, rows: int, backward: bool, device: torch.device, cache: int) -> list[Call]:
    def one(index: int) -> Call:
        mask, theta = random_bits(width, width, index, device), _theta(device, index)
        x = normals(rows, width, device=device, seed=index).bfloat16()
        if not backward:
            return lambda: masked_mm(x, mask, theta)
        # The op by itself: autograd's threads know nothing of the sizes that are tried, nor of a capture.
        planes = mask[None], theta.constant, None, None, *theta.counter()
        return lambda: torch.ops.supermask.masked_mm_backward(x, *planes, width)

    return [one(index) for index in range(_count(width**2 / 8 + 4 * rows * width, cache))]


def _convolution(of: Convolution, images: int, device: torch.device, cache: int) -> list[Call]:
    window: dict[str, Any] = {"stride": of.stride, "padding": of.kernel // 2}

    def one(index: int) -> Call:
        mask, theta = random_bits(of.rows, of.edges // of.rows, index, device), _theta(device, index)
        x = normals(images, of.channels, of.size, of.size, device=device, seed=index)
        x = x.to(torch.bfloat16, memory_format=torch.channels_last)
        return lambda: masked_conv2d(x, mask, theta, (of.kernel, of.kernel), **window)

    return [one(index) for index in range(_count(of.least(images, 1).bytes, cache))]


def _edges(shapes: Shapes) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes)


def _selection(shapes: Shapes, device: torch.device, cache: int) -> list[Call]:
    def one() -> Call:
        scores = scores_of(list(shapes), device)
        kept = torch.tensor([max(1, s.numel() // 2) for s in scores], device=device)
        return lambda: select(scores, kept, [None] * len(scores))

    return [one() for _ in range(_count(4 * _edges(shapes), cache))]


def _step(shapes: Shapes, device: torch.device, cache: int) -> list[Call]:
    """With a rate of 0, so that every call does the same."""

    def one() -> Call:
        scores = scores_of(list(shapes), device)
        kept = torch.tensor([max(1, s.numel() // 2) for s in scores], device=device)
        grads = [normals(*s.shape, device=device, seed=index) * 1e-3 for index, s in enumerate(scores)]
        momenta = [torch.full_like(s, -0.0) for s in scores]
        thetas = [Theta(7, index, 0, torch.ones(1, device=device)) for index in range(len(scores))]
        brackets = torch.tensor([NO_BRACKET] * len(scores), dtype=torch.int32, device=device)
        lr, nobody = torch.zeros((), device=device), [None] * len(scores)

        def step() -> Threshold:
            return score_step(scores, grads, momenta, nobody, thetas, kept, brackets, lr=lr, absolute=True, **SGD)

        step()
        return step

    return [one() for _ in range(_count(20 * _edges(shapes), cache))]


def _made(shape: tuple[int, int], device: torch.device, cache: int) -> list[Call]:
    def one(index: int) -> Call:
        mask, theta = random_bits(*shape, index, device), _theta(device, index)
        return lambda: packed_weight(mask, shape, theta, torch.bfloat16)

    return [one(index) for index in range(_count((2 + 1 / 8) * shape[0] * shape[1], cache))]


def _selected(shape: tuple[int, int], device: torch.device, cache: int) -> list[Call]:
    kept = torch.tensor([shape[0] * shape[1] // 2], device=device)

    def one(index: int) -> Call:
        scores, theta = normals(*shape, device=device, seed=index), _theta(device, index)
        (found,) = zip(*select([scores], kept, [None]), strict=True)
        return lambda: subnet(scores, Threshold(*found), theta, dtype=torch.bfloat16)

    return [one(index) for index in range(_count(6 * shape[0] * shape[1], cache))]
