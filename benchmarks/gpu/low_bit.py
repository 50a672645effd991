"""Products of 2-bit weights of other packages, where these are installed."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.gpu.bench import NotHere

__all__ = ["LOW_BIT", "LowBit"]

GROUP = 128  # weights that share a scale


def gemlite(weight: Tensor, constant: float) -> Callable[[Tensor], Tensor]:
    """y = x W^T of a GemLiteLinear."""
    if find_spec("gemlite") is None:
        raise NotHere("not installed")
    from gemlite.core import TORCH_TO_DTYPE, GemLiteLinearTriton

    rows, cols = weight.shape
    dtype = TORCH_TO_DTYPE[weight.dtype]
    layer = GemLiteLinearTriton(2, GROUP, cols, rows, input_dtype=dtype, output_dtype=dtype)
    groups = torch.ones(weight.numel() // GROUP, 1, dtype=weight.dtype, device=weight.device)
    layer.pack((weight / constant).round().add(1).to(torch.uint8), groups * constant, groups, None)
    found: Callable[[Tensor], Tensor] = layer
    return found


def torchao(weight: Tensor, _: float) -> Callable[[Tensor], Tensor]:
    """y = x W^T of a linear layer that torchao has quantised."""
    if find_spec("torchao") is None:
        raise NotHere("not installed")
    try:
        from torchao.quantization import UIntXWeightOnlyConfig, quantize_
    except ImportError as error:
        raise NotHere(f"this torchao has no 1 to 2 bit product ({error})") from error
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    quantize_(layer, UIntXWeightOnlyConfig(dtype=torch.uint2, group_size=GROUP, set_inductor_config=False))
    return layer


@dataclass(frozen=True, kw_only=True)
class LowBit:
    """A rival."""

    name: str
    make: Callable[[Tensor, float], Callable[[Tensor], Tensor]]
    """Of a dense weight of -c, 0 and c, and c."""
    allowed: float
    """Error of the product, as a fraction of its norm."""


LOW_BIT = (
    LowBit(name="gemlite, 2 bits", make=gemlite, allowed=1e-2),
    # It rounds to levels of its own, among which c is not.
    LowBit(name="torchao, 2 bits", make=torchao, allowed=0.6),
)
