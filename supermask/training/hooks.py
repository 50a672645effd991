"""What a method may do in the training loop, beside selecting: before a step, in its place, after it, at an epoch's
end, the loss, and what is measured of the network.

Every hook is called once at its place, also in a run that was killed and goes on: `step` and `epoch` say where. What a
hook changes lies in the network's buffers, in place, so that checkpoints hold it and a captured step reads it. All but
`loss` run without gradients.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermask.data.base import Batch


class Hooks:
    """Edge-popup's: cross-entropy, and nothing else.

    Attributes:
        whole_gradients: the loss reads scores by another way than the weights, or `step` reads `scores.grad`. Unless
            this is True, ScoreSGD leaves there the gradients of the weights, which it completes in its step; with True
            a search is stepped by torch.optim.SGD's own rule. Whoever overrides `loss` or `step` says which it is.

    Raises:
        TypeError: a subclass has a public function named almost as a hook, which nothing would call, or its own `loss`
            or `step` and says nothing of `whole_gradients`.
    """

    whole_gradients: ClassVar[bool] = False

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        known = {name for base in cls.__bases__ for name in dir(base) if not name.startswith("_")}
        for name, value in vars(cls).items():
            public = callable(value) and not name.startswith("_") and name not in known
            if public and (close := get_close_matches(name, known, n=1, cutoff=0.85)):
                raise TypeError(f"{cls.__name__}.{name} is called by nothing: is it {close[0]}? If not, rename it")
        own = [name for name in ("loss", "step") if name in vars(cls)]
        if own and "whole_gradients" not in vars(cls):
            raise TypeError(
                f"{cls.__name__} has its own {own[0]} and does not say whole_gradients: write whole_gradients = True "
                "where the loss reads scores by another way than the weights, or step reads the gradients of scores; "
                "otherwise False, and the fused step serves"
            )

    def before_step(self, model: nn.Module, step: int) -> None:
        """Before the forward of optimiser step `step`, counted from 0 over the whole run."""

    def loss(
        self, model: nn.Module, network: Callable[[Tensor], Tensor], batch: Batch, label_smoothing: float
    ) -> tuple[Tensor, Tensor | None]:
        """The loss of a batch, and the logits [batch, classes] that training accuracy is counted from; None: it is not.

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

    def evaluate(self, model: nn.Module, accuracy: Callable[[], float]) -> Mapping[str, float]:
        """What is measured after a cycle, by name; reports know `accuracy`, which may be missing.

        Args:
            model: the network, or the one that its ticket makes.
            accuracy: of `model` as it is, on the whole test set, over all processes; each call is a pass over it.
        """
        return {"accuracy": accuracy()}


PLAIN = Hooks()
