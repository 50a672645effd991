"""One call of masked_conv2d as a value: its arguments, drawn or made, and what they ought to give in plain PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from supermask.kernels.base.theta import Theta
from supermask.kernels.masked_conv2d.op import masked_conv2d
from tests.devices import CPU, On
from tests.kernels.cases import theta_of, theta_plain
from tests.kernels.paths import SEEDS, random_words, sizes, unpack_plain

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Conv:
    """The arguments of one call; padding bits of all packed words are set at random."""

    images: int = 2
    channels: int = 3
    size: Pair = (5, 6)
    rows: int = 5
    kernel: Pair = (3, 2)
    stride: Pair = (1, 1)
    padding: Pair = (1, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    coats: int = 1
    source: str = "seed"
    flips: bool = False
    bias: bool = True
    channels_last: bool = True
    seed: int = 2**63 + 1
    constant: float = 0.5
    dtype: torch.dtype = torch.float32

    @property
    def cols(self) -> int:
        return self.channels // self.groups * self.kernel[0] * self.kernel[1]

    @property
    def theta(self) -> Theta:
        return theta_of(self.rows, self.cols, self.source, seed=self.seed, constant=self.constant)

    def mask(self) -> Tensor:
        return torch.stack([random_words(self.rows, self.cols, 10 + coat) for coat in range(self.coats)])

    def flip_words(self) -> Tensor | None:
        return random_words(self.rows, self.cols, 9) if self.flips else None

    def weight(self) -> Tensor:
        """In float64, from the bits one by one."""
        weight = theta_plain(self.theta, self.rows, self.cols).double()
        if self.flips:
            weight = torch.where(unpack_plain(self.flip_words(), self.cols), -weight, weight)
        weight = weight * sum(unpack_plain(words, self.cols).double() for words in self.mask())
        return weight.view(self.rows, self.channels // self.groups, *self.kernel)

    def tensors(self, draw: Callable[[tuple[int, ...]], Tensor]) -> tuple[Tensor, Tensor | None]:
        """x and bias of values `draw(shape)`."""
        x = draw((self.images, self.channels, *self.size)).to(self.dtype)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return x, draw((self.rows,)).to(self.dtype) if self.bias else None

    def steps(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def bound(self, device: torch.device = CPU) -> Callable[[Tensor, Tensor | None], Tensor]:
        """masked_conv2d of x and bias on `device`, all else made there."""
        mask, theta, flips = On(device)((self.mask(), self.theta, self.flip_words()))
        steps = self.steps()
        return lambda x, bias: masked_conv2d(x, mask, theta, self.kernel, bias=bias, flips=flips, **steps)

    def run(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return self.bound(x.device)(x, bias)

    def plain(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """PyTorch's, in the dtype of x and where x is."""
        return F.conv2d(x, self.weight().to(x), bias, **self.steps())

    def magnitudes(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The sums of the absolute values of what the convolution adds, for x and bias not negative."""
        return F.conv2d(x, self.weight().abs().to(x.dtype), bias, **self.steps())

    def op_args(self, between: Any) -> tuple[Any, ...]:
        """Of both ops, after the first; `between` is the bias of one, the size of x of the other."""
        constant, signs, _, *draw = self.theta.schema()
        steps = list(self.kernel), list(self.stride), list(self.padding), list(self.dilation), self.groups
        return self.mask(), constant, signs, self.flip_words(), between, *steps, *draw


def whole_numbers(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(3)).float()


def normal(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


def forward_and_backward(
    case: Conv,
    call: Callable[[Tensor, Tensor | None], Tensor],
    draw: Callable[[tuple[int, ...]], Tensor],
    dtype: torch.dtype | None = None,
    on: On = On(CPU),
) -> tuple[Tensor | None, ...]:
    """y and the gradients of x and bias; in `dtype`, of values that the case's dtype holds."""
    given = on(case.tensors(draw))
    x, bias = (None if one is None else one.to(dtype or case.dtype).requires_grad_() for one in given)
    y = call(x, bias)
    y.backward(draw(tuple(y.shape)).to(case.dtype).to(y))
    return y.detach(), x.grad, None if bias is None else bias.grad


@st.composite
def convs(draw: st.DrawFn, **fixed: Any) -> Conv:
    groups = draw(st.sampled_from([1, 1, 1, 2]))
    wide = sizes([1, 3, 13, 31, 33] if groups == 1 else [1, 17, 31], [64, 144])
    kernel = draw(st.sampled_from([(1, 1), (1, 1), (3, 3), (2, 3), (1, 4)]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (3, 2)]))
    padding = draw(st.sampled_from([(0, 0), (1, 1), (0, 2), (3, 1)]))
    least = [max(1, dilation[i] * (kernel[i] - 1) + 1 - 2 * padding[i]) for i in range(2)]
    case = Conv(
        images=draw(st.sampled_from([1, 2])),
        channels=groups * draw(wide),
        size=tuple(each + draw(sizes([0, 1, 2, 3], [9, 14])) for each in least),
        rows=groups * draw(sizes([1, 2, 7, 33], [129, 260])),
        kernel=kernel,
        stride=draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3), (2, 2)])),
        padding=padding,
        dilation=dilation,
        groups=groups,
        coats=draw(st.sampled_from([1, 1, 3])),
        source=draw(st.sampled_from(["seed", "signs"])),
        flips=draw(st.booleans()),
        bias=draw(st.booleans()),
        channels_last=draw(st.booleans()),
        seed=draw(SEEDS),
        dtype=draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])),
    )
    return replace(case, **fixed)
