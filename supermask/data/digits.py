"""scikit-learn's handwritten digits, which need no download."""

from dataclasses import dataclass
from typing import Literal

import torch

from supermask.checks import check_choice
from supermask.data.base import About, Loaded, in_memory

Layout = Literal["flat", "image"]


@dataclass(frozen=True, kw_only=True)
class Digits:
    """scikit-learn's 8x8 handwritten digits: 1,000 for training, stratified, and 797 for testing.

    Attributes:
        batch: training batch size over all processes; an incomplete last batch is dropped.
        layout: `flat` inputs [64] for networks of linear layers, `image` [1, 8, 8] for convolutional ones.
    """

    batch: int = 32
    layout: Layout = "flat"

    def __post_init__(self) -> None:
        check_choice("layout", self.layout, Layout)

    def about(self) -> About:
        return About(classes=10, train=1000, shape=(64,) if self.layout == "flat" else (1, 8, 8))

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        images = (images / 16 - 0.5) / 0.5
        # The split is part of the task: one for all seeds.
        split = train_test_split(images, labels, train_size=1000, stratify=labels, random_state=0)
        shape = (-1, *self.about().shape)
        x_train, x_test = (torch.tensor(part, dtype=torch.float32, device=device).view(shape) for part in split[:2])
        y_train, y_test = (torch.tensor(part, dtype=torch.int64, device=device) for part in split[2:])
        return in_memory(x_train, y_train, x_test, y_test, batch=self.batch, seed=seed)
