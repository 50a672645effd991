"""Effective weights from packed masks."""

from supermask.kernels.packed_weight.op import packed_weight

__all__ = ["packed_weight"]
