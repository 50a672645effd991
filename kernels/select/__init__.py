"""The threshold of a layer: its `kept` highest edges."""

from supermask.kernels.select.op import select

__all__ = ["select"]
