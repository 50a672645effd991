"""Random inputs, from generators of their own: a capture that fails may leave the device's default one unusable."""

import torch
from torch import Tensor

from supermask.kernels.base.bits import pack

__all__ = ["normals", "random_bits"]


def normals(*shape: int, device: torch.device, seed: int = 0) -> Tensor:
    """Float32 numbers of a normal distribution."""
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def random_bits(rows: int, cols: int, seed: int, device: torch.device) -> Tensor:
    """Packed bits of even odds."""
    generator = torch.Generator(device).manual_seed(seed)
    return pack(torch.rand(rows, cols, generator=generator, device=device) < 0.5)
