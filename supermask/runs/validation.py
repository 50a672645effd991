"""Validation: the network on training images that are held out, while it trains, and the epoch picked by them."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import nn

from supermask.checks import check_choice, hold_numbers
from supermask.runs.measured import accuracy_held_out
from supermask.training.loop import Loop

Pick = Literal["last", "best"]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Accuracy on training images that are held out, while training goes on.

    Attributes:
        every: after so many epochs of a cycle each, and after its last one; where it has none, once; 0: never.
        pick: the epoch whose network, batch-norm statistics and all, a cycle ends with: the `last`, or the one that
            was `best` on the held-out images, the first of equals. Momentum is the last one's in either case.
    """

    every: int = 1
    pick: Pick = "last"

    def __post_init__(self) -> None:
        hold_numbers(self)
        if self.every < 0:
            raise ValueError(f"every={self.every}: expected a number of epochs from 0 (never) up")
        check_choice("pick", self.pick, Pick)
        if self.pick == "best" and not self.every:
            raise ValueError("pick='best' with every=0: no epoch is evaluated on held-out images; give every=1 or more")

    def due(self, epoch: int, epochs: int) -> bool:
        """Whether epoch `epoch`, from 1, of a cycle of so many is evaluated."""
        return self.every > 0 and (epoch % self.every == 0 or epoch == epochs)


NEVER = Validation(every=0)


class Chosen(NamedTuple):
    """The network that a cycle ends with.

    Attributes:
        accuracy: on the held-out images; None where it was not measured.
        epoch: its epoch, from 1 over the whole run; None where none was picked.
    """

    accuracy: float | None
    epoch: int | None


NOT_VALIDATED = Chosen(None, None)


class Validator:
    """Validates a cycle at a time, and keeps the network of its best epoch where that is wanted."""

    def __init__(self, says: Validation) -> None:
        self.says = says
        self._last: float | None = None
        self._best: tuple[float, int, Mapping[str, Any]] | None = None

    def after_epoch(self, loop: Loop, epoch: int, epochs: int, *, may_pick: bool = True) -> float | None:
        """The accuracy of the network of `loop` after epoch `epoch`, from 1, of a cycle of so many; None if not due.

        Args:
            may_pick: the cycle may end with this network: it has the cycle's own rate.
        """
        if not self.says.due(epoch, epochs):
            return None
        self._last = accuracy = accuracy_held_out(loop)
        if self.says.pick == "best" and may_pick and (self._best is None or accuracy > self._best[0]):
            self._best = accuracy, loop.epoch, deepcopy(loop.model.state_dict())
        return accuracy

    def end_cycle(self, model: nn.Module) -> Chosen:
        """Put the picked network into `model`; the next cycle begins with nothing kept."""
        last, best = self._last, self._best
        self._last = self._best = None
        if best is None:
            return Chosen(last, None)
        accuracy, epoch, state = best
        model.load_state_dict(state)
        return Chosen(accuracy, epoch)

    def state_dict(self) -> dict[str, Any]:
        """What is kept of the cycle in progress, as a checkpoint holds it."""
        return {"last": self._last, "best": None if self._best is None else list(self._best)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` says."""
        self._last = state["last"]
        self._best = None if state["best"] is None else tuple(state["best"])
