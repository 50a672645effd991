"""From scores to effective weights."""

from supermask.kernels.subnet.op import subnet

__all__ = ["subnet"]
