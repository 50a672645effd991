"""One SGD step of scores, and the next selection."""

from supermask.kernels.score_step.op import score_step

__all__ = ["score_step"]
