"""What a masked product is given, checked."""

import torch
from torch import Tensor

from supermask.kernels.base.bits import check_words
from supermask.kernels.base.theta import Theta


def check_mm(
    x: Tensor, mask: Tensor, theta: Theta, bias: Tensor | None, flips: Tensor | None, codes: Tensor | None
) -> None:
    """Raise TypeError or ValueError unless the arguments of masked_mm fit each other."""
    dtypes = [torch.float32, torch.bfloat16, torch.float16, *([torch.float64] if x.device.type == "cpu" else [])]
    if x.dtype not in dtypes:
        raise TypeError(f"x is {x.dtype} on {x.device}: expected {', '.join(map(str, dtypes))}")
    if x.ndim == 0:
        raise ValueError("x is a scalar: expected [..., cols]")
    _check_weights(mask, theta, flips, x.shape[-1])
    rows = mask.shape[-2]
    if bias is not None and bias.dtype not in (x.dtype, torch.float32):
        raise TypeError(f"bias is {bias.dtype}: expected {x.dtype}, as x, or torch.float32")
    if bias is not None and (bias.shape != (rows,) or not bias.is_contiguous()):
        raise ValueError(
            f"bias has shape {tuple(bias.shape)} and strides {bias.stride()}: expected contiguous {(rows,)}"
        )
    if codes is not None and codes.dtype is not torch.int32:
        raise TypeError(
            f"codes are {codes.dtype}: expected torch.int32, see supermask.kernels.masked_mm.codes.interleave"
        )
    if codes is not None and (codes.device.type != "cpu" or mask.shape[:-2].numel() > 1):
        raise ValueError(
            f"codes are on {codes.device}, the mask has shape {tuple(mask.shape)}: they are for one coat on CPU"
        )
    tensors = {"mask": mask, "theta.constant": theta.constant, "theta.signs": theta.signs, "bias": bias, "flips": flips}
    for name, tensor in tensors.items():
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device} and x on {x.device}: move them to one device")


def _check_weights(mask: Tensor, theta: Theta, flips: Tensor | None, cols: int) -> None:
    if theta.base is not None or theta.real is not None:
        raise ValueError(
            f"theta.{'real' if theta.base is None else 'base'} is given: masked_mm makes weights from a constant and "
            "signs; make these with supermask.kernels.packed_weight.packed_weight and multiply by "
            "torch.nn.functional.linear"
        )
    if mask.ndim not in (2, 3) or mask.shape[0] == 0 or not mask.is_contiguous():
        raise ValueError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)} and strides {mask.stride()}: expected contiguous "
            "torch.int32 of shape [rows, words] or [coats, rows, words]"
        )
    check_words("mask", mask.flatten(0, -2), cols)
    for name, words in (("theta.signs", theta.signs), ("flips", flips)):
        if words is not None:
            check_words(name, words, cols, mask.shape[-2])
    constant = theta.constant
    if constant.dtype is not torch.float32 or constant.numel() != 1:
        raise ValueError(
            f"theta.constant is {constant.dtype} of shape {tuple(constant.shape)}: expected one torch.float32"
        )
