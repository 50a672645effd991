"""What the versions at hand can do, found by trying: tests check what each does, and skip nothing."""

from functools import cache

import torch
import torch.nn.functional as F

from supermask.kernels.base.launch import jit, launch, tl
from tests.devices import DEVICE


@jit
def _fma_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, tl.fma(x, x, -1.0))


@cache
def kernels_fuse() -> bool:
    """Whether a fused multiply-add of a Triton kernel rounds once, as on GPUs; before 3.9 the interpreter's rounds
    twice."""
    x = torch.full((16,), 1 + 2.0**-12, device=DEVICE)  # its square needs a bit more than float32 has
    out = torch.zeros(16, device=DEVICE)
    launch(_fma_kernel, (1,), x, out, BLOCK=16)
    return bool((out == 2.0**-11 + 2.0**-24).all())


@cache
def a_zero_bias_changes_no_product() -> bool:
    """Whether torch adds a bias of zeros to a product of one transposed sequence without rounding it otherwise; 2.11
    takes another product there."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 17, 48, generator=generator), torch.randn(144, 48, generator=generator)
    products = (F.linear(x.transpose(0, 1), weight, bias) for bias in (None, torch.zeros(144)))
    return torch.equal(*products)
