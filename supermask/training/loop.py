"""The training loop: epochs of SGD on whatever a network trains, at a learning rate an epoch.

It knows nothing of cycles; a stage (supermask/runs/stages.py) prepares the network and calls it, and what a method does
beside is in the hooks (supermask/training/hooks.py). Every
random number of a step is a function of the seed and the step alone, so that a run which stops after any step can go on
as if it had not.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from supermask.data.base import Batch, Loaded
from supermask.devices import set_seed
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import selected_once
from supermask.training.beside import NOTHING, Beside
from supermask.training.captured import CapturedStep, Results, capturable, check_capture
from supermask.training.first_step import warn_of_untouched
from supermask.training.hooks import PLAIN, Hooks
from supermask.training.non_finite import NonFiniteError, first_non_finite
from supermask.training.parallel import ALONE, Group
from supermask.training.schedules import Rate, StepRates, rate_at
from supermask.training.score_sgd import ScoreSGD
from supermask.training.training import Training

Searching = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """One epoch of training.

    Attributes:
        loss, accuracy: means over the global training batches; no accuracy where the loss gave no logits.
    """

    loss: float
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Duration:
    """Where the time of an epoch went, since it was begun or resumed.

    Attributes:
        seconds: in all.
        data_wait: share of it spent waiting for batches.
    """

    seconds: float
    data_wait: float


@dataclass(kw_only=True)
class Tally:
    """The epoch in progress.

    Attributes:
        step: steps taken.
        losses, right, count: up to the last `Loop.reduce`, over all processes: a loss a step, inputs classified right,
            inputs seen.
        own_losses, own_right, own_count: since then, this process's share.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    right: int = 0
    count: int = 0
    own_losses: list[Tensor] = field(default_factory=list)
    own_right: Tensor | int = 0
    own_count: int = 0


@dataclass(kw_only=True)
class Loop:
    """A network, its data and its optimiser, trained an epoch at a time.

    Attributes:
        model: the network; `runner` is the same network, compiled or averaging gradients over the processes or not.
        hooks: what the method does beside.
        beside: what is called after the hooks.
        seed: of the random numbers that dropout draws.
        group: the processes that share the batches.
        step: optimiser steps taken so far.
        epoch: epochs taken so far.
        lr: the learning rate applied last.
        shift: epoch e takes the batches of epoch e - shift; not 0 only in a cycle that was rewound.
        tally: of the epoch in progress.
        took: the time of the last epoch.
        seconds, waited: of all epochs since the run was begun or resumed, and how much of it was waiting for batches.
    """

    model: nn.Module
    loaded: Loaded
    training: Training
    device: torch.device
    hooks: Hooks = PLAIN
    beside: Beside = NOTHING
    seed: int = 0
    group: Group = ALONE
    step: int = 0
    epoch: int = 0
    lr: float = 0.0
    shift: int = 0
    tally: Tally = field(default_factory=Tally)
    took: Duration | None = None
    seconds: float = 0.0
    waited: float = 0.0

    def __post_init__(self) -> None:
        if self.training.capture:
            check_capture(self.device, self.group.ranks, self.hooks)
        self._wrap()

    def _wrap(self) -> None:
        """Make `runner`, which averages the gradients of what the network trains at this moment."""
        self._trained = _trained(self.model)
        self._captured: tuple[torch.optim.Optimizer, CapturedStep] | None = None
        self._begun: torch.optim.Optimizer | None = None
        runner = self.group.wrap(self.model)
        self.runner: Callable[[Tensor], Tensor] = torch.compile(runner) if self.training.compile else runner

    def run_epoch(
        self, optimiser: torch.optim.Optimizer, lr: Rate, after_step: Callable[[], object] = lambda: None
    ) -> EpochResult:
        """One epoch at the rate `lr`, or the rest of the one in progress; `after_step` is called after each step.

        Raises:
            NonFiniteError: for the loss at once on CPU, and at the end of the epoch where reading it would stall the
                device; for scores at the end of the epoch.
        """
        if self.training.capture:
            capturable(optimiser, self.device)
        self._set_rate(optimiser, rate_at(lr, max(self.tally.step - 1, 0), self.loaded.steps))
        if _trained(self.model) != self._trained:
            self._wrap()
        self.model.train()
        searching = self._searching(optimiser)
        inputs: Tensor | None = None
        began = time.perf_counter()
        waited = 0.0
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            batches = self.loaded.train(self.group.part(self.epoch - self.shift, self.tally.step))
            while True:
                asked = time.perf_counter()
                batch = next(batches, None)
                waited += time.perf_counter() - asked
                if batch is None:
                    break
                inputs = batch[0]
                if isinstance(lr, StepRates):
                    self._set_rate(optimiser, rate_at(lr, self.tally.step, self.loaded.steps))
                self.take_step(optimiser, batch, searching)
                after_step()
        if not self.tally.step:
            raise ValueError("the training data gave no batch")
        result = self._close(inputs)
        with torch.no_grad():
            self.hooks.end_epoch(self.model, self.epoch)
        seconds = time.perf_counter() - began
        self.took = Duration(seconds=seconds, data_wait=waited / seconds)
        self.seconds += seconds
        self.waited += waited
        return result

    def _set_rate(self, optimiser: torch.optim.Optimizer, lr: float) -> None:
        self.lr = lr
        for group in optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)  # where a captured step reads it
            else:
                group["lr"] = lr

    def take_step(self, optimiser: torch.optim.Optimizer, batch: Batch, searching: Searching) -> None:
        """One step of the epoch in progress; forward and backward run within `searching`."""
        set_seed(((self.seed * 1_000_003 + self.step) * 1_009 + self.group.rank) % (1 << 63), self.device)
        with torch.no_grad():
            self.hooks.before_step(self.model, self.step)
            self.beside.before_step(optimiser)
        loss, right = self._way(optimiser, searching)(batch)
        with torch.no_grad():
            self.hooks.after_step(self.model, self.step)
            self.beside.after_step(optimiser, loss)
        tally = self.tally
        tally.own_losses.append(loss)
        if right is not None:
            tally.own_right = tally.own_right + right
            tally.own_count += len(batch[1])
        tally.step += 1
        self.step += 1

    def _way(self, optimiser: torch.optim.Optimizer, searching: Searching) -> Callable[[Batch], Results]:
        """How a step is taken: as it is, or captured."""
        plain = partial(self._take, optimiser, searching)
        if not self.training.capture:
            return plain
        if self._captured is None or self._captured[0] is not optimiser:
            self._captured = optimiser, CapturedStep(plain, self.model, optimiser)
        return self._captured[1]

    def _take(self, optimiser: torch.optim.Optimizer, searching: Searching, batch: Batch) -> Results:
        """Forward, backward and the optimiser's step: the loss, and how many inputs were classified right."""
        inputs, labels = batch
        with searching():
            with self.autocast():
                found = self.hooks.loss(self.model, self.runner, batch, self.training.label_smoothing)
            if not isinstance(found, tuple) or len(found) != 2:
                raise TypeError(
                    f"{type(self.hooks).__name__}.loss gave {type(found).__name__}: expected a pair, the loss and the "
                    "logits [batch, classes], or None for these"
                )
            loss, logits = found
            if self.device.type == "cpu" and not math.isfinite(loss.item()):
                raise self._broke_down(f"at step {self.step} with loss {loss.item()}", inputs)
            loss.backward()
        if optimiser is not self._begun:
            self._begun = optimiser
            self._look_at_first(optimiser)
        with torch.no_grad():
            self.beside.after_backward(optimiser, loss.detach())
            taken = self.hooks.step(self.model, optimiser, self.step)
        if not taken:
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        right = None if logits is None else (logits.detach().argmax(dim=1) == labels).sum()
        return loss.detach(), right

    def _look_at_first(self, optimiser: torch.optim.Optimizer) -> None:
        """Warn of layers that a search does not reach; ScoreSGD does so itself."""
        if not isinstance(optimiser, ScoreSGD) and any(isinstance(m, SearchedEdges) for m in self.model.modules()):
            warn_of_untouched(self.model, of_weights=False)

    def _close(self, inputs: Tensor | None) -> EpochResult:
        """The epoch's means over all processes; the tally begins again."""
        self.reduce()
        tally, values = self.tally, self.tally.losses
        for offset, value in enumerate(values):
            if not math.isfinite(value):
                raise self._broke_down(f"at step {self.step - len(values) + offset} with loss {value}", inputs)
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters()):
            raise self._broke_down(f"between steps {self.step - len(values)} and {self.step}", inputs)
        self.epoch += 1
        self.tally = Tally()
        accuracy = tally.right / tally.count if tally.count else None
        return EpochResult(loss=sum(values) / len(values), accuracy=accuracy)

    def reduce(self) -> None:
        """Take the other processes' share into the tally; every process calls it at the same step."""
        tally, group = self.tally, self.group
        losses = torch.stack(tally.own_losses) if tally.own_losses else torch.zeros(0, device=self.device)
        counts = torch.zeros(2, dtype=torch.int64, device=self.device)
        counts[0] += tally.own_right
        counts[1] += tally.own_count
        right, count = group.sum(counts).tolist()
        self.tally = Tally(
            step=tally.step,
            losses=[*tally.losses, *(group.sum(losses) / group.ranks).tolist()],
            right=tally.right + right,
            count=tally.count + count,
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the loop stands, after `reduce`."""
        tally = self.tally
        if tally.own_losses:
            raise RuntimeError(f"{len(tally.own_losses)} steps are of this process alone: reduce before state_dict")
        state = {"step": self.step, "epoch": self.epoch}
        return state | {"losses": list(tally.losses), "right": tally.right, "count": tally.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` says."""
        self.step, self.epoch = state["step"], state["epoch"]
        losses = list(state["losses"])
        self.tally = Tally(step=len(losses), losses=losses, right=state["right"], count=state["count"])

    def autocast(self) -> torch.autocast:
        """The precision of training and evaluation."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bfloat16")

    def _searching(self, optimiser: torch.optim.Optimizer) -> Searching:
        """What `optimiser` runs forward and backward within; one that has no say needs one selection of the edges."""
        found: Searching | None = None if self.hooks.whole_gradients else getattr(optimiser, "searching", None)
        return found or partial(selected_once, self.model)

    def _broke_down(self, when: str, inputs: Tensor | None) -> NonFiniteError:
        # In training mode the batch norms of a data-parallel run would wait for the other processes.
        self.model.train(self.group.ranks == 1)
        where = (None if inputs is None else first_non_finite(self.model, inputs)) or "the loss itself"
        return NonFiniteError(
            f"training broke down {when}; first non-finite values: {where}. Try a lower learning rate than "
            f"{self.training.lr}, a longer warm-up or precision float32; look for NaN in the data"
        )


def _trained(model: nn.Module) -> list[int]:
    return [id(parameter) for parameter in model.parameters() if parameter.requires_grad]
