"""Convolutions with weights that are made inside."""

from supermask.kernels.masked_conv2d.op import masked_conv2d

__all__ = ["masked_conv2d"]
