"""What a method may do in the training loop, beside selecting: before a step, in its place, after it, at an epoch's
end, and the loss.

Every hook is called once at its place, also in a run that was killed and goes on: `step` and `epoch` say where. What a
hook changes lies in the network's buffers, in place, so that checkpoints hold it and a captured step reads it. All but
`loss` run without gradients.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermask.data.base import Batch


class Hooks:
    """Edge-popup's: cross-entropy, and nothing else.

    Attributes:
        whole_gradients: the loss reads scores by another way than the weights, or `step` reads `scores.grad`. Unless
            this is True, ScoreSGD leaves there the gradients of the weights, which it completes in its step; with True
            a search is stepped by torch.optim.SGD's own rule.
    """

    whole_gradients: ClassVar[bool] = False

    def before_step(self, model: nn.Module, step: int) -> None:
        """Before the forward of optimiser step `step`, counted from 0 over the whole run."""

    def loss(
        self, model: nn.Module, network: Callable[[Tensor], Tensor], batch: Batch, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and the logits [batch, classes] that training accuracy is counted from.

        Args:
            network: `model`, compiled or averaging over processes or not: what a forward goes through.
        """
        inputs, labels = batch
        logits = network(inputs)
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"the network returned {type(logits).__name__}: the loop trains networks that return logits "
                "[batch, classes]; build it without auxiliary outputs (aux_logits=False)"
            )
        return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing), logits

    def step(self, model: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> bool:
        """With the gradients of step `step`: True where this took the place of the optimiser's step."""
        return False

    def after_step(self, model: nn.Module, step: int) -> None:
        """After the optimiser's step `step`, with the gradients gone."""

    def end_epoch(self, model: nn.Module, epoch: int) -> None:
        """After epoch `epoch`, counted from 1 over the whole run."""


PLAIN = Hooks()
