"""Hooks of the user's: what a run calls beside its method, and what each may read and change.

| place | called | may read | may change |
|---|---|---|---|
| `begin(run)` | before the first stage that is left, after `load_state_dict` | `run` | nothing |
| `before_step(now)` | before the forward, after the method's own hook | network, optimiser | the network |
| `after_backward(now)` | before the optimiser's step | gradients, loss | gradients; no scores |
| `after_step(now)` | with the gradients gone, after the method's own hook | network, loss | the network |
| `end_epoch(now, record)` | the epoch is validated and recorded | `record`, an Epoch | the network |
| `end_cycle(now, record)` | the cycle is evaluated | `record`, a CycleResult | the network |
| `log(event)` | a line of metrics.jsonl is written; first process | the line, as JSON has it | nothing |
| `end(result)` | all stages are done, before summary.json | `result`, a RunResult | nothing |
| `close()` | the run ended, was stopped or broke down | | |

What is changed is changed in place: `grad.mul_`, `clip_grad_norm_`, `edges.scores.copy_`. Settings of the optimiser's
groups may be changed too, but for the rate, which each epoch sets. What `end_cycle` changes the next cycle, or the
ticket, has.

The gradient of scores that ScoreSGD steps, `scores.grad` in `after_backward`, is that of the effective weights, dL/dw;
the step makes that of the scores of it. Under another optimiser, or a method with `whole_gradients`, it is the scores'
own. All run without gradients; `with torch.enable_grad():` has them. `now.loss` lies on the device: reading it as a
number waits for the step. Torch's generators are seeded by the seed and the step, and what a logging hook draws of them
changes nothing for others.

Each is called once at its place, also in a run that was killed and goes on: what is done again after the last
checkpoint is called again, with the state that the hook had there (`state_dict`). Only `end` can be called again, where
a run is killed between it and summary.json, or resumed to tell a tracker what is left. `state_dict` is asked before
`begin` too, for which of a hook's attributes are settings and which its state; `begin` of a run that goes on, whose
`run.step` is not 0, finds the loaded state, and leaves it.

What one raises ends the run by its name and place. In `close` it takes nothing from a run that ended well, which has
its summary by then; where an error or a signal ended the run, that is raised, and what `close` raised is a warning.
Trackers (supermask.trackers) fail with a warning at all places but `begin`, and are told the rest later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from supermask.checks import SupermaskError
from supermask.methods.cycles import Cycle
from supermask.runs.options import RunResult
from supermask.runs.records import CycleResult, Epoch
from supermask.training.hooks import check_names

CHANGING = "before_step", "after_backward", "after_step", "end_epoch", "end_cycle"
"""Places where a hook can change what is trained."""
_OF_A_METHOD = "a method (supermask.Method) has one where a cycle or an epoch begins, and what is measured"
_ELSEWHERE = {
    **dict.fromkeys(("begin_cycle", "on_cycle_begin", "on_cycle_start", "cycle_begin", "evaluate"), _OF_A_METHOD),
    **dict.fromkeys(("begin_epoch", "on_epoch_begin", "on_epoch_start", "on_train_epoch_start"), _OF_A_METHOD),
    **dict.fromkeys(("on_train_begin", "on_train_start", "on_fit_start", "on_begin", "begin_run"), "begin"),
    **dict.fromkeys(("on_train_end", "on_fit_end", "on_end", "end_run", "end_train"), "end"),
    **dict.fromkeys(("step_begin", "on_step_begin", "on_before_step", "on_train_batch_start"), "before_step"),
    **dict.fromkeys(("backward_end", "on_after_backward", "on_backward_end"), "after_backward"),
    **dict.fromkeys(("step_end", "end_step", "on_step_end", "on_after_step"), "after_step"),
    **dict.fromkeys(("on_train_batch_end", "on_batch_end"), "after_step"),
    **dict.fromkeys(("after_epoch", "epoch_end", "on_epoch_end", "on_train_epoch_end"), "end_epoch"),
    **dict.fromkeys(("after_cycle", "cycle_end", "on_cycle_end", "end_of_cycle"), "end_cycle"),
}


class HookError(SupermaskError, RuntimeError):
    """A hook that failed; the message names it and the place."""

    status = 1


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A run that begins, or goes on.

    Attributes:
        name: of the recipe.
        folder: where it writes.
        settings: the configuration, as config.json has it under "recipe".
        seed: of the run.
        step: steps taken before it was stopped; 0 where it begins.
        events: the lines of metrics.jsonl that it has from before, which `log` does not get; in the first process.
        device: of this process.
        rank, ranks: which of how many processes this is.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    seed: int
    step: int
    events: Sequence[Mapping[str, Any]]
    device: torch.device
    rank: int
    ranks: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Now:
    """Where a run is.

    Attributes:
        model: the network; its searched layers are in `supermask.searched_edges(now.model)`.
        optimiser: of the cycle; None in the `end_cycle` of one without a step, where none was made before.
        step: the one in progress, from 0 over the whole run; in `end_epoch` and `end_cycle` how many were taken.
        epoch: the one in progress, or that ended, from 1 over the whole run.
        cycle: likewise its number.
        plan: what the cycle is; None for dense training.
        loss: of the step, float32 [] on the device; in `after_backward` and `after_step`.
        device: of this process.
        rank: which process this is; the first is 0.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer | None
    step: int
    epoch: int
    cycle: int
    plan: Cycle | None
    loss: Tensor | None
    device: torch.device
    rank: int


class Hook:
    """Does nothing; whoever inherits overrides what it is for. `Recipe(hooks=(MyHook(),))` has several called in order.

    A hook that keeps something between its calls has `state_dict()` and `load_state_dict(state)` too: tensors, numbers,
    strings, lists and dictionaries, saved in every checkpoint by the first process and loaded by all. Attributes that
    are named as its entries are state; fields of a dataclass, and all other attributes, are settings.

    Attributes:
        changes_training: False of one that only looks. Such a hook is how a run is run: with and without it is the same
            run. Any other that overrides a place where training can be changed is part of what the run is: its type,
            its fields and the digest of its source.
        first_only: called in the first process alone; for hooks that only look.

    Raises:
        TypeError: a subclass has a function named almost as a place, one of `state_dict` and `load_state_dict`, or is
            called in the first process alone and changes training.
    """

    changes_training: ClassVar[bool] = True
    first_only: ClassVar[bool] = False
    called: ClassVar[tuple[str, ...]] = (
        "begin", *CHANGING, "log", "end", "close", "state_dict", "load_state_dict"
    )  # fmt: skip
    """Names of all places, and of the two that keep state."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        # Shorter ones are near to too many words: "send" to "end".
        check_names(cls, cls.called, _ELSEWHERE, near=[name for name in cls.called if len(name) > 5])
        if callable(getattr(cls, "state_dict", None)) != callable(getattr(cls, "load_state_dict", None)):
            raise TypeError(f"{cls.__name__} has one of state_dict and load_state_dict: give it both, or neither")
        if cls.first_only and changes(cls):
            raise TypeError(
                f"{cls.__name__} has first_only = True and may change training, which the other processes would not "
                "do: say changes_training = False if it only looks, or leave first_only out"
            )

    def begin(self, run: Begun) -> None:
        """A run begins, or goes on."""

    def before_step(self, now: Now) -> None:
        """Before the forward."""

    def after_backward(self, now: Now) -> None:
        """With the gradients there."""

    def after_step(self, now: Now) -> None:
        """After the optimiser's step."""

    def end_epoch(self, now: Now, record: Epoch) -> None:
        """An epoch ended."""

    def end_cycle(self, now: Now, record: CycleResult) -> None:
        """A cycle ended."""

    def log(self, event: Mapping[str, Any]) -> None:
        """A line of the metrics was written."""

    def end(self, result: RunResult) -> None:
        """The run ended."""

    def close(self) -> None:
        """Let go of what `begin` opened; also without `end`, where the run was stopped."""


def overrides(hook: "Hook | type[Hook]", place: str) -> bool:
    """Whether it does anything there."""
    kind = hook if isinstance(hook, type) else type(hook)
    return getattr(kind, place) is not getattr(Hook, place)


def changes(hook: "Hook | type[Hook]") -> bool:
    """Whether training may be another with it."""
    return hook.changes_training and any(overrides(hook, place) for place in CHANGING)


def has_state(hook: Hook) -> bool:
    """Whether it keeps something between its calls."""
    return callable(getattr(hook, "state_dict", None))


def checked(hooks: Sequence[Hook]) -> tuple[Hook, ...]:
    """The same, as a tuple.

    Raises:
        ValueError: something else than hooks.
    """
    if isinstance(hooks, Hook) or not isinstance(hooks, list | tuple):
        raise ValueError(f"hooks={hooks!r}: expected several, as in hooks=(MyHook(),)")
    for hook in hooks:
        if isinstance(hook, type) and issubclass(hook, Hook):
            raise ValueError(f"hooks has the class {hook.__name__}: make one of it, {hook.__name__}()")
        if not isinstance(hook, Hook):
            raise ValueError(f"hooks has {hook!r}: expected supermask.Hook's; a method's hooks are its own")
    return tuple(hooks)
