"""What a method may do in the training loop, beside selecting: before a step, in its place, after it, at an epoch's
end, the loss, and what is measured of the network.

All but `evaluate` are called once at their place, also in a run that was killed and goes on: `step` and `epoch` say
where. What a hook changes lies in the network's buffers, in place, so that checkpoints hold it and a captured step
reads it. All but `loss` run without gradients.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermask.checks import misnamed
from supermask.data.base import Batch

# What a hook is called elsewhere.
_OF_A_RUN = "what is called beside a method, supermask.Hook, has it"
_ELSEWHERE = {
    **dict.fromkeys(("after_epoch", "epoch_end", "on_epoch_end", "end_of_epoch"), "end_epoch"),
    **dict.fromkeys(
        ("begin_cycle", "on_cycle_begin", "on_cycle_start", "cycle_begin"), "a Method has `begin`, with the cycle"
    ),
    **dict.fromkeys(("end_cycle", "after_backward"), _OF_A_RUN),
}


def check_names(
    cls: type, called: Sequence[str], elsewhere: Mapping[str, str], near: Sequence[str] | None = None
) -> None:
    """Refuse a class with a function of its own that is named almost as a hook, or as one is named elsewhere.

    Args:
        called, elsewhere, near: as in `misnamed`, of all hooks; `elsewhere` may have a sentence that says whose another
            name is.

    Raises:
        TypeError: it has one.
    """
    for name, close in misnamed(cls, called, elsewhere, near):
        if close not in called:
            raise TypeError(f"{cls.__name__}.{name} is no hook here, and nothing calls it: {close}")
        raise TypeError(
            f"{cls.__name__}.{name} may be meant to be the hook {close}, and nothing calls it: rename it, to {close} "
            "if it is"
        )


class Hooks:
    """Edge-popup's: cross-entropy, and nothing else.

    Attributes:
        whole_gradients: the loss reads scores by another way than the weights, or `step` reads `scores.grad`. Unless
            this is True, ScoreSGD leaves there the gradients of the weights, which it completes in its step; with True
            a search is stepped by torch.optim.SGD's own rule. Whoever overrides `loss` or `step` says which it is.
        replayable: `loss` and `step` do what they do on the device, alike in every step and without asking it for a
            number, so that a captured step (`Training.capture`) may replay them. False of a class with either of its
            own, unless it says so.

    Raises:
        TypeError: a subclass has a function named almost as a hook, or a `loss` or `step` that is not Hooks' own, and
            neither it nor whoever wrote these says `whole_gradients` (or two of them disagree).
    """

    whole_gradients: ClassVar[bool] = False
    replayable: ClassVar[bool] = True
    called: ClassVar[tuple[str, ...]] = ("before_step", "loss", "step", "after_step", "end_epoch", "evaluate")
    """Names of all hooks."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        check_names(cls, cls.called, _ELSEWHERE)
        owners = [next(base for base in cls.__mro__ if name in vars(base)) for name in ("loss", "step")]
        if "replayable" not in vars(cls):
            cls.replayable = all(vars(owner).get("replayable", False) for owner in owners)
        said = {vars(owner).get("whole_gradients") for owner in owners if owner is not Hooks}
        if "whole_gradients" not in vars(cls) and said not in (set(), {cls.whole_gradients}):
            raise TypeError(
                f"{cls.__name__} has its own loss or step and does not say whole_gradients: write whole_gradients = "
                "True where the loss reads scores by another way than the weights, or step reads the gradients of "
                "scores; otherwise False, and the fused step serves"
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
        """What is measured after a cycle, by name, finite; reports know `accuracy`, which may be missing.

        Called with the statistics of training, again where batch norms were recalibrated, and for the network that the
        ticket makes, in eval mode, in the precision of training (autocast), with torch's generator seeded.

        Args:
            model: the network, or the one that its ticket makes, which has no searched edges.
            accuracy: of `model` as it is, on the whole test set: a pass over it, in which all processes take part. So
                each of them calls it as often as the others.
        """
        return {"accuracy": accuracy()}


PLAIN = Hooks()
