"""The hyperparameters of a step."""

from typing import NamedTuple


class Sgd(NamedTuple):
    """As in torch.optim.SGD."""

    lr: float
    momentum: float
    weight_decay: float
    nesterov: bool
