"""Hooks that tests of runs share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from supermask.edges.in_model import searched_edges
from supermask.runs.hook import Begun, Hook, Now
from supermask.runs.options import RunResult
from supermask.runs.records import CycleResult, Epoch


class Diary(Hook):
    """Writes down each call, as its state, so that what a killed run lost is not in it."""

    changes_training = False

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.closed = 0

    def begin(self, run: Begun) -> None:
        self.calls.append(f"begin {run.name} {run.step}")

    def before_step(self, now: Now) -> None:
        assert now.loss is None
        self.calls.append(f"before {now.cycle} {now.epoch} {now.step}")

    def after_backward(self, now: Now) -> None:
        assert now.loss is not None
        self.calls.append(f"backward {now.step}")

    def after_step(self, now: Now) -> None:
        assert now.loss is not None
        self.calls.append(f"after {now.step}")

    def end_epoch(self, now: Now, record: Epoch) -> None:
        assert (record.epoch, record.step, record.cycle) == (now.epoch, now.step, now.cycle)
        self.calls.append(f"epoch {now.epoch}")

    def end_cycle(self, now: Now, record: CycleResult) -> None:
        assert now.plan is None or now.plan.remaining == record.rate
        self.calls.append(f"cycle {record.cycle} {record.accuracy is not None}")

    def log(self, event: Mapping[str, Any]) -> None:
        self.calls.append(f"log {event['event']}")

    def end(self, result: RunResult) -> None:
        self.calls.append(f"end {len(result.cycles)} {len(result.tickets)}")

    def close(self) -> None:
        self.closed += 1

    def state_dict(self) -> dict[str, Any]:
        return {"calls": list(self.calls)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = list(state["calls"])


@dataclass(frozen=True)
class Clipped(Hook):
    """Gradients of at most this norm."""

    most: float = 1e-3

    def after_backward(self, now: Now) -> None:
        torch.nn.utils.clip_grad_norm_(now.model.parameters(), self.most)


@dataclass(frozen=True)
class Shrunk(Hook):
    """Scores shrink a little at each place where the network may be changed."""

    by: float = 0.5
    at: str = "before_step"

    def before_step(self, now: Now) -> None:
        self.shrink("before_step", now)

    def after_step(self, now: Now) -> None:
        self.shrink("after_step", now)

    def end_epoch(self, now: Now, record: Epoch) -> None:
        self.shrink("end_epoch", now)

    def end_cycle(self, now: Now, record: CycleResult) -> None:
        self.shrink("end_cycle", now)

    def shrink(self, place: str, now: Now) -> None:
        if place == self.at:
            for edges in searched_edges(now.model).values():
                edges.scores.mul_(1 - self.by * torch.rand(edges.shape))


class Counted(Hook):
    """Turns the scores' signs with every third step, by a count of its own."""

    def __init__(self) -> None:
        self.count = torch.zeros(())

    def after_step(self, now: Now) -> None:
        self.count += 1
        if int(self.count) % 3 == 0:
            for edges in searched_edges(now.model).values():
                edges.scores.neg_()

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


class Drawing(Hook):
    """Only looks, but draws random numbers and leaves them."""

    changes_training = False

    def _draw(self, *_: Any) -> None:
        torch.rand(3)

    begin = before_step = after_backward = after_step = end_epoch = end_cycle = log = end = _draw  # type: ignore[assignment]
