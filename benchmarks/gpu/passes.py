"""Kernels that go over a layer's edges, each beside the bytes it must move: where there is most to gain.

The layer is so large that little of it stays in the cache; what moves few of its bytes goes round several layers, and
holds their results, so that they lie apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench, Case, Rival
from benchmarks.gpu.drawn import normals, random_bits
from benchmarks.gpu.floors import Work
from benchmarks.gpu.products import sets_of
from supermask.kernels.base.bits import pack, popcount, unpack
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.philox import WEIGHTS, normal, sign_words, uniform
from supermask.kernels.base.theta import Theta
from supermask.kernels.packed_weight.op import packed_weight
from supermask.kernels.select.op import select
from supermask.kernels.subnet.op import subnet

__all__ = ["PassSizes", "cases"]

DTYPES = torch.float32, torch.bfloat16


@dataclass(frozen=True, kw_only=True)
class PassSizes:
    """Of the layer."""

    rows: int = 8192
    cols: int = 8192


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One kernel."""

    name: str
    bytes: float
    """An edge that must be moved."""
    call: Callable[["Inputs"], object]


class Inputs:
    """Of one set; the large ones are made when they are asked for first."""

    def __init__(self, rows: int, cols: int, index: int, device: torch.device) -> None:
        self.rows, self.cols, self.index, self.device = rows, cols, index, device
        self.theta = Theta(7, 3, 0, torch.ones(1, device=device))
        self.kept = torch.tensor([rows * cols // 2], device=device)
        self.place = 7, 3, rows, cols

    @cached_property
    def mask(self) -> Tensor:
        return random_bits(self.rows, self.cols, 2 * self.index, self.device)

    @cached_property
    def ever(self) -> Tensor:
        return random_bits(self.rows, self.cols, 2 * self.index + 1, self.device)

    @cached_property
    def scores(self) -> Tensor:
        return normals(self.rows, self.cols, device=self.device, seed=self.index)

    @cached_property
    def boolean(self) -> Tensor:
        return self.scores > 0

    @cached_property
    def threshold(self) -> Threshold:
        return select([self.scores], self.kept, [None])

    @cached_property
    def grads(self) -> dict[torch.dtype, Tensor]:
        return {dtype: self.scores.to(dtype, copy=True) for dtype in DTYPES}


def _in_dtype(dtype: torch.dtype) -> list[Pass]:
    name, size, bit = str(dtype).removeprefix("torch."), dtype.itemsize, 1 / 8

    def forward(of: Inputs) -> object:
        return subnet(of.scores, of.threshold, of.theta, ever=of.ever, dtype=dtype)

    def backward(of: Inputs) -> object:
        # The op by itself: autograd runs a backward on the stream of its forward, which a graph has not captured.
        return torch.ops.supermask.subnet_backward(of.grads[dtype], of.scores, None, *of.theta.schema(), True)

    def made(of: Inputs) -> object:
        return packed_weight(of.mask, (of.rows, of.cols), of.theta, dtype)

    return [
        # Scores in; weights, mask and (read and written) the edges ever selected out.
        Pass(name=f"subnet, {name}", bytes=4 + size + 3 * bit, call=forward),
        Pass(name=f"subnet backward, {name}", bytes=size + 4 + 4, call=backward),
        Pass(name=f"packed_weight, {name}", bytes=size + bit, call=made),
    ]


def passes() -> list[Pass]:
    """Every pass over a layer; masks, signs and the like are a bit an edge."""
    bit, drawn = 1 / 8, {"purpose": WEIGHTS}

    def words(of: Inputs) -> object:
        return sign_words(*of.place, device=of.device)

    def flat(of: Inputs) -> object:
        return uniform(*of.place, **drawn, low=-1.0, high=1.0, device=of.device)

    def bell(of: Inputs) -> object:
        return normal(*of.place, **drawn, std=1.0, device=of.device)

    found = [
        Pass(name="sign_words", bytes=bit, call=words),
        Pass(name="uniform", bytes=4, call=flat),
        Pass(name="normal", bytes=4, call=bell),
        Pass(name="pack", bytes=1 + bit, call=lambda of: pack(of.boolean)),
        Pass(name="unpack", bytes=1 + bit, call=lambda of: unpack(of.mask, of.cols)),
        Pass(name="popcount", bytes=bit, call=lambda of: popcount(of.mask)),
        Pass(name="select", bytes=4, call=lambda of: select([of.scores], of.kept, [None])),
    ]
    return [*found, *_in_dtype(torch.float32), *_in_dtype(torch.bfloat16)]


class Held:
    """A call whose result lives until it is called again, so that the next one's lies elsewhere."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.result: object = None

    def __call__(self) -> None:
        self.result = self.call()


def _rival(one: Pass, edges: int, inputs: Callable[[int], Inputs], cache: int) -> Rival:
    """Over as many sets as keep what it moves out of the cache; of what moves much, over one."""
    moved = one.bytes * edges
    count = sets_of(moved, cache) if moved < 4 * cache else 1
    calls: list[Callable[[], object]] = [Held(partial(one.call, inputs(index))) for index in range(count)]
    return Rival(calls=calls if count > 1 else [partial(one.call, inputs(0))], work=Work(bytes=moved))


def cases(sizes: PassSizes) -> list[Case]:
    """All of them."""

    def run(bench: Bench) -> dict[str, Any]:
        edges, made = sizes.rows * sizes.cols, dict[int, Inputs]()

        def inputs(index: int) -> Inputs:
            if index not in made:
                made[index] = Inputs(sizes.rows, sizes.cols, index, bench.device)
            return made[index]

        rivals = {one.name: partial(_rival, one, edges, inputs, bench.timer.cache) for one in passes()}
        return bench.compare(rivals, base="select", warm=False, edges=edges)

    return [Case(name=f"passes over {sizes.rows} x {sizes.cols} edges", run=run)]
