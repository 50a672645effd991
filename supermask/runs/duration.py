"""How long a run would take: a few steps of it are timed, or it is said why they are not."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from supermask.data.base import About, Data, DataMissing, Described, Loaded, channels_last
from supermask.runs import threads
from supermask.runs.plan import Memory, Sizes, in_bytes
from supermask.runs.trial import LONG, Clock, batch_of, seconds_of, trial, undisturbed

if TYPE_CHECKING:
    from supermask.runs.configuration import Configuration

_SHORT = LONG / 5
_MOST_ON_CPU = 4_000_000_000
_PARTS, _LARGER = 16, 4  # the first batch is that part of a whole one; the next is so many times larger


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """How long a step of training takes here.

    Attributes:
        seconds: None where it was not timed.
        note: how it was timed, or why it was not.
    """

    seconds: float | None
    note: str = ""

    def of(self, steps: int) -> str:
        """What it says of a run of so many steps."""
        if self.seconds is None:
            return f"not timed: {self.note}"
        note = f", {self.note}" if self.note else ""
        return f"about {spoken(self.seconds * steps)} on this machine ({self.seconds:.3g} s a step{note})"


@dataclass(kw_only=True)
class StepTimes:
    """Steps that were timed: plans that differ in what takes no time share one.

    Attributes:
        count: threads on a CPU; by default those that a run would take.
        clock: seconds.
    """

    count: int | None = None
    clock: Clock = time.perf_counter
    found: dict[Any, StepTime] = field(default_factory=dict)

    def of(
        self, says: "Configuration", model: nn.Module, data: Sizes, memory: Memory, device: torch.device
    ) -> StepTime:
        """The time of a step of `says` on `device`; `model`, wherever it is, is left as it is."""
        network = str(says.architecture(data.classes)), type(says.method), bool(says.cycles), str(says.conversion)
        key = network, data, type(says.training), str(says.training.optimiser), says.training.precision, str(device)
        if key not in self.found:
            self.found[key] = self._timed(says, model, data, memory, device)
        return self.found[key]

    def _timed(
        self, says: "Configuration", model: nn.Module, data: Sizes, memory: Memory, device: torch.device
    ) -> StepTime:
        most = _MOST_ON_CPU if device.type == "cpu" else int(0.9 * torch.cuda.mem_get_info(device)[0])
        if memory.total > most:
            why = f"a step takes about {in_bytes(memory.total)}, more than the {in_bytes(most)} that a plan takes"
            return StepTime(seconds=None, note=f"{why} on {device}")
        with threads.restored(), undisturbed(device):
            if device.type == "cpu" and self.count:
                torch.set_num_threads(self.count)
            loaded, there = _opened(says.data, data, says.run.seed, device)
            try:
                return self._steps(says, model, loaded, device, [] if there else ["on random inputs: no data there"])
            except Exception as error:  # of a network that cannot be copied, or not be trained
                return StepTime(seconds=None, note=f"a step failed ({type(error).__name__}: {error})")

    def _steps(
        self, says: "Configuration", model: nn.Module, loaded: Loaded, device: torch.device, notes: list[str]
    ) -> StepTime:
        """Of ever larger batches up to the whole one, while steps are short; of a part of it, scaled."""

        def made(size: int) -> Callable[[], None]:
            return trial(says, model, loaded, batch_of(loaded, size), device)

        batch = says.data.batch
        size = min(batch, max(2, batch // _PARTS))
        cold = seconds_of(step := made(size), self.clock, steps=1, warm=False)
        while size < batch and (cold * _LARGER < _SHORT or device.type != "cpu"):
            size = min(batch, size * _LARGER)
            cold = seconds_of(step := made(size), self.clock, steps=1, warm=False)
        seconds = cold if cold * 3 > LONG else self._warm(step, cold, device)
        if size < batch:
            notes.append(f"scaled from a batch of {size}")
            half = size // 2
            less = seconds_of(made(half), self.clock, steps=1) if half > 1 else 0.0
            more = max(0.0, seconds - less) / (size - half) * (batch - size)  # what each input of a step adds
            seconds = min(seconds + more, seconds * batch / size)
        if says.training.compile or says.training.capture:
            notes.append("neither compiled nor captured")
        return StepTime(seconds=seconds, note=", ".join(notes))

    def _warm(self, step: Callable[[], None], cold: float, device: torch.device) -> float:
        """Of a step that was taken once, with the threads that a run would choose, which torch takes from here on."""
        steps = 2 if cold < 1 else 1
        if device.type != "cpu" or self.count or threads.said():
            return seconds_of(step, self.clock, steps=steps, warm=False)
        count, found = threads.fastest(step, threads.counts(), self.clock, steps=steps, warm=cold < 1)
        return found[count]


def spoken(seconds: float) -> str:
    """A duration in one unit."""
    units = (("years", 365 * 86400.0), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0))
    for name, length in units:
        if seconds >= 2 * length:
            return f"{seconds / length:,.{0 if name == 'minutes' else 1}f} {name}"
    return f"{seconds:.0f} seconds"


def _opened(data: Data, about: Sizes, seed: int, device: torch.device) -> tuple[Loaded, bool]:
    """The data, and whether it is there; where it is not, random inputs of its shape. Nothing is downloaded."""
    if getattr(data, "download", False):
        data = replace(data, download=False)  # type: ignore[type-var]
    try:
        return data.open(seed=seed, device=device), True
    except DataMissing:
        if not isinstance(data, Described):
            raise
    return _random(data.about(), about.batch, device), False


def _random(about: About, size: int, device: torch.device) -> Loaded:
    def batches(_part: Any) -> Any:
        inputs = torch.randn(size, *about.shape, device=device)
        yield channels_last(inputs), torch.randint(about.classes, (size,), device=device)

    return Loaded(classes=about.classes, steps=1, train=batches, test=batches, calibrate=batches)
