"""Products with weights that are made inside."""

from supermask.kernels.masked_mm.op import masked_mm

__all__ = ["masked_mm"]
