"""scikit-learn's handwritten digits, which need no download."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from supermask.checks import check_choice
from supermask.data.base import About, Loaded, in_memory
from supermask.data.held_out import Evaluated, check_held_out
from supermask.later import LATER, Grown

Layout = Literal["flat", "image"]
TRAINED = 1000
"""Digits for training."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Digits(Grown):
    """scikit-learn's 8x8 handwritten digits: 1,000 for training, stratified, and 797 for testing.

    Attributes:
        batch: training batch size over all processes; an incomplete last batch is dropped.
        layout: `flat` inputs [64] for networks of linear layers, `image` [1, 8, 8] for convolutional ones.
        hold_out: so many of the 1,000 are not trained on, the same ones for every seed.
        evaluate: what accuracies are of: the `test` digits, or the `held_out` ones.
    """

    batch: int = 32
    layout: Layout = "flat"
    hold_out: int = field(default=0, metadata=LATER)
    evaluate: Evaluated = field(default="test", metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("layout", self.layout, Layout)
        check_held_out(self.hold_out, TRAINED, self.evaluate)

    def about(self) -> About:
        train = TRAINED - self.hold_out
        return About(classes=10, train=train, shape=(64,) if self.layout == "flat" else (1, 8, 8))

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        parts = split_digits()
        shape = (-1, *self.about().shape)
        x_train, x_test = (((part / 16 - 0.5) / 0.5).to(device, torch.float32).view(shape) for part in parts[:2])
        y_train, y_test = (part.to(device) for part in parts[2:])
        return in_memory(
            x_train, y_train, x_test, y_test, batch=self.batch, seed=seed, classes=10, hold_out=self.hold_out
        ).evaluated_on(self.evaluate)


def split_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels from 0 to 16, float64 [images, 64], for training and for testing; then the labels of both, int64.

    The split is part of the task: one for all seeds.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = (
        torch.from_numpy(part)
        for part in train_test_split(images, labels, train_size=TRAINED, stratify=labels, random_state=0)
    )
    return x_train, x_test, y_train, y_test
