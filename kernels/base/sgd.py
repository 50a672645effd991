"""The hyperparameters of a step."""

from typing import NamedTuple

from torch import Tensor


class Sgd(NamedTuple):
    """As in torch.optim.SGD.

    `lr` is a tensor, float32 of one element on the device of what is stepped: whoever captures a step can change it in
    place between replays.
    """

    lr: Tensor
    momentum: float
    weight_decay: float
    nesterov: bool
