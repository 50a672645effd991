"""What a masked convolution is given, checked: pairs, shapes, dtypes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from supermask.kernels.base.bits import check_words
from supermask.kernels.base.theta import Theta

Pair = tuple[int, int]


class Window(NamedTuple):
    """How a kernel moves over its input: height and width of each, and the groups of channels."""

    kernel: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int

    def out_size(self, size: Sequence[int]) -> Pair:
        """Height and width of the result for an input of height and width `size`."""
        kernel, stride, padding, dilation, _ = self
        height, width = (
            (size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)
        )
        return height, width


DTYPES = torch.float32, torch.bfloat16, torch.float16, torch.float64


def pair(name: str, value: int | Sequence[int], least: int) -> Pair:
    """A number for both axes, or one for each, as two.

    Raises:
        TypeError: neither an integer nor a sequence.
        ValueError: a number below `least`, or other than two of them.
    """
    if not isinstance(value, int | torch.SymInt | Sequence) or isinstance(value, str):
        raise TypeError(f"{name} is {value!r}: expected an integer or a pair of them")
    both = tuple(value) if isinstance(value, Sequence) else (value, value)
    if not all(isinstance(one, int | torch.SymInt) for one in both):
        raise TypeError(f"{name} is {value!r}: expected an integer or a pair of them")
    if len(both) != 2 or min(both) < least:
        raise ValueError(f"{name} is {value!r}: expected an integer of at least {least}, or two of them")
    return both[0], both[1]


def check_conv2d(
    x: Tensor,
    mask: Tensor,
    theta: Theta,
    flips: Tensor | None,
    bias: Tensor | None,
    window: Window,
) -> None:
    """Raise TypeError or ValueError unless the arguments of masked_conv2d fit each other; `mask` has its coats."""
    kernel, groups = window.kernel, window.groups
    if x.dtype not in DTYPES or (x.dtype is torch.float64 and x.device.type != "cpu"):
        raise TypeError(
            f"x is {x.dtype} on {x.device}: expected torch.float32, bfloat16 or float16 (on CPU float64, too)"
        )
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}: expected [images, channels, height, width]")
    if theta.base is not None or theta.real is not None:
        raise ValueError(
            "theta has real-valued weights (base or real), which no packed bits describe: make them with "
            "supermask.kernels.packed_weight.packed_weight and use torch.nn.functional.conv2d"
        )
    if mask.ndim != 3 or not 1 <= mask.shape[0] <= 256:
        raise ValueError(f"mask has shape {tuple(mask.shape)}: expected [rows, words] or [1 to 256 coats, rows, words]")
    rows, channels = mask.shape[1], x.shape[1]
    if groups < 1 or channels % groups or rows % groups or not rows or not channels:
        raise ValueError(
            f"x has {channels} channels and mask {rows} rows: groups={groups} must divide both, and neither be zero"
        )
    cols = channels // groups * kernel[0] * kernel[1]
    if not mask.is_contiguous():
        raise ValueError(f"mask of shape {tuple(mask.shape)} has strides {mask.stride()}: make it .contiguous()")
    check_words("mask", mask.view(-1, mask.shape[2]), cols)
    theta.check(rows, cols)
    if flips is not None:
        check_words("flips", flips, cols, rows)
    if theta.constant.dtype is not torch.float32 or theta.constant.numel() != 1:
        raise ValueError(
            f"theta.constant is {theta.constant.dtype} of shape {tuple(theta.constant.shape)}: expected one float32"
        )
    if bias is not None and (not bias.is_floating_point() or bias.shape != (rows,) or not bias.is_contiguous()):
        raise ValueError(
            f"bias is {bias.dtype} of shape {tuple(bias.shape)} and strides {bias.stride()}: expected contiguous reals "
            f"of shape {(rows,)}"
        )
    others = {"mask": mask, "theta.constant": theta.constant, "theta.signs": theta.signs, "flips": flips, "bias": bias}
    for name, tensor in others.items():
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device} and x on {x.device}: move them to one device")
    if min(window.out_size(x.shape[2:])) < 1:
        raise ValueError(
            f"x of height and width {tuple(x.shape[2:])} with padding {window.padding} is smaller than the "
            f"kernel {kernel} with dilation {window.dilation}"
        )
