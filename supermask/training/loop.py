"""The training loop: epochs of SGD on whatever a network trains, at a learning rate an epoch.

It knows nothing of cycles or methods; a stage (supermask/runs/stages.py) prepares the network and calls it. Every
random number of a step is a function of the seed and the step alone, so that a run which stops after any step can go on
as if it had not.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermask.data.base import Batch, Loaded
from supermask.training.evaluate import selected_once
from supermask.training.non_finite import NonFiniteError, first_non_finite
from supermask.training.parallel import ALONE, Group
from supermask.training.score_sgd import ScoreSGD
from supermask.training.training import Training


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """One epoch of training.

    Attributes:
        loss, accuracy: means over the global training batches.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class EpochTime:
    """Where the time of an epoch went, since it was begun or resumed.

    Attributes:
        seconds: in all.
        data_wait: share of it spent waiting for batches.
    """

    seconds: float
    data_wait: float


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Part of an epoch before the run was stopped, over all processes: losses of its steps, inputs right and seen."""

    losses: tuple[float, ...] = ()
    right: int = 0
    count: int = 0


@dataclass(kw_only=True)
class Tally:
    """The epoch in progress.

    Attributes:
        step: steps taken.
        earlier: those before the run was resumed.
        losses, right, count: of the others, this process's share: a loss a step, inputs classified right, inputs seen.
    """

    step: int = 0
    earlier: Earlier = field(default_factory=Earlier)
    losses: list[Tensor] = field(default_factory=list)
    right: Tensor | int = 0
    count: int = 0


@dataclass(kw_only=True)
class Loop:
    """A network, its data and its optimiser, trained an epoch at a time.

    Attributes:
        model: the network; `runner` is the same network, compiled or averaging gradients over the processes or not.
        seed: of the random numbers that dropout draws.
        group: the processes that share the batches.
        step: optimiser steps taken so far.
        epoch: epochs taken so far, which orders the batches.
        tally: of the epoch in progress.
        took: the time of the last epoch.
        seconds, waited: of all epochs since the run was begun or resumed, and how much of it was waiting for batches.
    """

    model: nn.Module
    loaded: Loaded
    training: Training
    device: torch.device
    seed: int = 0
    group: Group = ALONE
    step: int = 0
    epoch: int = 0
    tally: Tally = field(default_factory=Tally)
    took: EpochTime | None = None
    seconds: float = 0.0
    waited: float = 0.0

    def __post_init__(self) -> None:
        runner = self.group.wrap(self.model)
        self.runner: Callable[[Tensor], Tensor] = torch.compile(runner) if self.training.compile else runner

    def run_epoch(
        self, optimiser: torch.optim.Optimizer, lr: float, after_step: Callable[[], object] = lambda: None
    ) -> EpochResult:
        """One epoch at the rate `lr`, or the rest of the one in progress; `after_step` is called after each step.

        Raises:
            NonFiniteError: for the loss at once on CPU, and at the end of the epoch where reading it would stall the
                device; for scores at the end of the epoch.
        """
        for group in optimiser.param_groups:
            group["lr"] = lr
        self.model.train()
        inputs: Tensor | None = None
        began = time.perf_counter()
        waited = 0.0
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            batches = self.loaded.train(self.group.part(self.epoch, self.tally.step))
            while True:
                asked = time.perf_counter()
                batch = next(batches, None)
                waited += time.perf_counter() - asked
                if batch is None:
                    break
                inputs = batch[0]
                self._step(optimiser, batch)
                after_step()
        if not self.tally.step:
            raise ValueError("the training data gave no batch")
        result = self._close(inputs)
        seconds = time.perf_counter() - began
        self.took = EpochTime(seconds=seconds, data_wait=waited / seconds)
        self.seconds += seconds
        self.waited += waited
        return result

    def _step(self, optimiser: torch.optim.Optimizer, batch: Batch) -> None:
        torch.manual_seed(((self.seed * 1_000_003 + self.step) * 1_009 + self.group.rank) % (1 << 63))
        inputs, labels = batch
        with optimiser.searching() if isinstance(optimiser, ScoreSGD) else selected_once(self.model):
            with self.autocast():
                logits = self.runner(inputs)
                if not isinstance(logits, Tensor):
                    raise TypeError(
                        f"the network returned {type(logits).__name__}: the loop trains networks that return "
                        "logits [batch, classes]; build it without auxiliary outputs (aux_logits=False)"
                    )
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.training.label_smoothing)
            if self.device.type == "cpu" and not math.isfinite(loss.item()):
                raise self._broke_down(f"at step {self.step} with loss {loss.item()}", inputs)
            loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        tally = self.tally
        tally.losses.append(loss.detach())
        tally.right = tally.right + (logits.detach().argmax(dim=1) == labels).sum()
        tally.count += len(labels)
        tally.step += 1
        self.step += 1

    def _close(self, inputs: Tensor | None) -> EpochResult:
        """The epoch's means over all processes; the tally begins again."""
        state = self.state()
        values = state["losses"]
        for offset, value in enumerate(values):
            if not math.isfinite(value):
                raise self._broke_down(f"at step {self.step - len(values) + offset} with loss {value}", inputs)
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters()):
            raise self._broke_down(f"between steps {self.step - len(values)} and {self.step}", inputs)
        self.epoch += 1
        self.tally = Tally()
        return EpochResult(loss=sum(values) / len(values), accuracy=state["right"] / state["count"])

    def state(self) -> dict[str, Any]:
        """Where the loop stands, over all processes, for `load_state`; every process calls it at the same step."""
        tally, group = self.tally, self.group
        losses = torch.stack(tally.losses) if tally.losses else torch.zeros(0, device=self.device)
        counts = torch.zeros(2, dtype=torch.int64, device=self.device)
        counts[0] += tally.right
        counts[1] += tally.count
        right, count = group.sum(counts).tolist()
        return {
            "step": self.step,
            "epoch": self.epoch,
            "losses": [*tally.earlier.losses, *(group.sum(losses) / group.ranks).tolist()],
            "right": tally.earlier.right + right,
            "count": tally.earlier.count + count,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` says."""
        self.step, self.epoch = state["step"], state["epoch"]
        earlier = Earlier(losses=tuple(state["losses"]), right=state["right"], count=state["count"])
        self.tally = Tally(step=len(earlier.losses), earlier=earlier)

    def autocast(self) -> torch.autocast:
        """The precision of training and evaluation."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bfloat16")

    def _broke_down(self, when: str, inputs: Tensor | None) -> NonFiniteError:
        # In training mode the batch norms of a data-parallel run would wait for the other processes.
        self.model.train(self.group.ranks == 1)
        where = (None if inputs is None else first_non_finite(self.model, inputs)) or "the loss itself"
        return NonFiniteError(
            f"training broke down {when}; first non-finite values: {where}. Try a lower learning rate than "
            f"{self.training.lr}, a longer warm-up or precision float32; look for NaN in the data"
        )
