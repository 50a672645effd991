"""What else a step calls beside the method's hooks: whoever trains says what; the loop alone calls nothing."""

import torch
from torch import Tensor


class Beside:
    """Nothing. All of it is called without gradients, once a step."""

    def before_step(self, optimiser: torch.optim.Optimizer) -> None:
        """Before the forward, after the method's own hook."""

    def after_backward(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        """With the gradients there, before the optimiser's step; not in the replay of a captured step."""

    def after_step(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        """With the gradients gone, after the method's own hook."""


NOTHING = Beside()
