"""Training images that are held out: settings can be chosen by them, and the test set be left to the last."""

from typing import Literal

import torch
from torch import Tensor

from supermask.checks import check_choice

Evaluated = Literal["test", "held_out"]
"""What a run is evaluated on: the test set, or the training images that are held out."""
_SPLIT = 777


def check_held_out(hold_out: float, below: float, evaluate: Evaluated) -> None:
    """Refuse a number (or fraction) of images that is not from 0 to `below`, and an evaluation on none."""
    if not 0 <= hold_out < below:
        raise ValueError(f"hold_out={hold_out}: expected from 0 to below {below:,}, some images being left to train on")
    check_choice("evaluate", evaluate, Evaluated)
    if evaluate == "held_out" and not hold_out:
        raise ValueError("evaluate='held_out' with hold_out=0: hold some training images out, or evaluate the test set")


def split(count: int, hold_out: int) -> tuple[Tensor, Tensor]:
    """Numbers of the images to train on, and of those held out, int64, each rising: one split for all seeds.

    Raises:
        ValueError: not so many images.
    """
    if not 0 <= hold_out < count:
        raise ValueError(f"hold_out={hold_out}: the training set has {count:,} images; hold fewer out")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(_SPLIT))
    return order[: count - hold_out].sort().values, order[count - hold_out :].sort().values
