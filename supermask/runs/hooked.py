"""The hooks of a run, called in order: each at its places, with where the run is."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from supermask.devices import set_seed
from supermask.methods.cycles import Cycle
from supermask.runs.hook import Begun, Hook, HookError, Now, changes, has_state, overrides
from supermask.runs.options import RunResult
from supermask.runs.records import CycleResult, Epoch
from supermask.runs.sources import qualified
from supermask.runs.trackers.telling import Tracker
from supermask.training.beside import NOTHING, Beside
from supermask.training.loop import Loop

_KEPT = str, bytes, int, float, bool, type(None)


class Hooked(Beside):
    """Calls `hooks`, those of the first process only there.

    Args:
        loop: what trains; it calls those of a step.
        report: takes a sentence for the user.

    Attributes:
        cycle: number of the cycle in progress, or that ended last.
        plan: what it is; None for dense training.

    Raises:
        HookError: by whatever calls a hook that raises.
    """

    def __init__(self, hooks: Sequence[Hook], loop: Loop, report: Callable[[str], object] = lambda _: None) -> None:
        self.loop = loop
        self._report = report
        self._behind: dict[int, Tracker] = {}
        self._may_fail = ["log", "end", "close"]  # of trackers
        self.cycle = 0
        self.plan: Cycle | None = None
        self._hooks = [hook for hook in hooks if loop.group.first or not hook.first_only]
        places = (place for place in Hook.called if hasattr(Hook, place))
        self._at = {place: [hook for hook in self._hooks if overrides(hook, place)] for place in places}

    @property
    def logs(self) -> bool:
        """Whether any of them takes lines of the metrics."""
        return bool(self._at["log"])

    @property
    def behind(self) -> list[str]:
        """The trackers that were not told all, by type."""
        return [type(tracker).__name__ for tracker in self._behind.values()]

    def begin(self, run: Begun, *, over: bool = False) -> None:
        """The run begins, or goes on. Of one that is `over` trackers may fail to begin, and then hear no more of it."""
        if over:
            self._may_fail.append("begin")
        self._between("begin", run)
        for place in "log", "end":
            self._at[place] = [hook for hook in self._at[place] if id(hook) not in self._behind]

    def before_step(self, optimiser: torch.optim.Optimizer) -> None:
        self._within("before_step", optimiser)

    def after_backward(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        self._within("after_backward", optimiser, loss)

    def after_step(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        self._within("after_step", optimiser, loss)

    def end_epoch(self, optimiser: torch.optim.Optimizer, record: Epoch) -> None:
        """An epoch ended, and was recorded."""
        if self._at["end_epoch"]:
            self._between("end_epoch", self._now(optimiser, self.loop.epoch), record)

    def end_cycle(self, optimiser: torch.optim.Optimizer | None, record: CycleResult) -> None:
        """A cycle ended, and was evaluated."""
        if self._at["end_cycle"]:
            self._between("end_cycle", self._now(optimiser, self.loop.epoch), record)

    def log(self, event: Mapping[str, Any]) -> None:
        """A line of the metrics was written."""
        self._between("log", event)

    def end(self, result: RunResult) -> None:
        """All is done."""
        self._between("end", result)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)

    def close(self, ended_by: BaseException | None = None) -> None:
        """Each lets go, also where another fails to, and the loop of them all: processes that decode its images end
        with it. Where an error or a signal ended the run, that stands, and hooks that fail are reported."""
        self.loop.beside = NOTHING
        failed: list[HookError] = []
        for hook in self._at["close"]:
            try:
                self._call(hook, "close")
            except HookError as error:
                failed.append(error)
        raised = failed[:1] if ended_by is None else []
        for other in failed[len(raised) :]:
            self._report(str(other))
        if raised:
            raise raised[0]

    def state_dict(self) -> dict[str, Any]:
        """By type, the states of those that keep one; nothing where none does."""
        states: dict[str, Any] = {}
        for hook in filter(has_state, self._hooks):
            state = self._call(hook, "state_dict")
            wrong = _not_kept(state, "it") if isinstance(state, dict) else f"{type(state).__name__} in place of one"
            if wrong is not None:
                raise HookError(
                    f"hook {type(hook).__name__}.state_dict gave {wrong}: a checkpoint holds a dictionary of tensors, "
                    "numbers, strings, lists and dictionaries"
                )
            states.setdefault(qualified(type(hook)), []).append(state)
        return states

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Give each its state back; a hook that only looks, and was not there before, has none."""
        left = {kind: list(held) for kind, held in states.items()}
        for hook in filter(has_state, self._hooks):
            if held := left.get(qualified(type(hook))):
                self._call(hook, "load_state_dict", held.pop(0))

    def _now(self, optimiser: torch.optim.Optimizer | None, epoch: int, loss: Tensor | None = None) -> Now:
        loop = self.loop
        return Now(
            model=loop.model,
            optimiser=optimiser,
            step=loop.step,
            epoch=epoch,
            cycle=self.cycle,
            plan=self.plan,
            loss=loss,
            device=loop.device,
            rank=loop.group.rank,
        )

    def _within(self, place: str, optimiser: torch.optim.Optimizer, loss: Tensor | None = None) -> None:
        """In a step, whose random numbers are those of hooks that change training too."""
        if not self._at[place]:
            return
        now = self._now(optimiser, self.loop.epoch + 1, loss)
        for hook in self._at[place]:
            if changes(hook):
                self._call(hook, place, now)
            else:
                with self._apart():
                    self._call(hook, place, now)

    @torch.no_grad()
    def _between(self, place: str, *given: Any) -> None:
        """Between steps, where the random numbers that are left are not the same in a run that goes on."""
        for hook in self._at[place]:
            with self._apart():
                set_seed((self.loop.seed * 1_000_003 + self.loop.step) % (1 << 63), self.loop.device)
                self._call(hook, place, *given)

    @contextmanager
    def _apart(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[self.loop.device] if self.loop.device.type == "cuda" else []):
            yield

    def _call(self, hook: Hook, place: str, *given: Any) -> Any:
        try:
            found = getattr(hook, place)(*given)
        except Exception as error:
            failed = (
                f"hook {type(hook).__name__}.{place} failed after {self.loop.step} steps: "
                f"{type(error).__name__}: {error}"
            )
            if isinstance(hook, Tracker) and place in self._may_fail:
                self._excuse(hook, place, failed)
                return None
            goes_on = "mend it, and begin the run anew: with other code of it it is another run"
            if place == "close":
                goes_on = "what the run saved stands"
            elif not changes(hook):
                goes_on = "mend it, and --resume goes on"
            raise HookError(f"{failed}; {goes_on}") from error
        if place in ("log", "end"):
            self._behind.pop(id(hook), None)
        return found

    def _excuse(self, tracker: Tracker, place: str, failed: str) -> None:
        """One warning, until it succeeds again."""
        goes_on = {
            "log": "the run goes on: what is left is told at the next event, and what is left at its end by --resume",
            "close": "what was told stands",
        }
        if id(tracker) not in self._behind:
            self._report(f"{failed}; {goes_on.get(place, 'the run stands, and --resume tells what is left')}")
        if place != "close":
            self._behind[id(tracker)] = tracker


def _not_kept(value: Any, where: str) -> str | None:
    """What of a state no checkpoint gives back, and where it is."""
    parts: list[tuple[Any, str]] = []
    if type(value) in (dict, OrderedDict):
        parts = [(held, f"{where}[{key!r}]") for key, held in value.items()]
        if wrong := [key for key in value if not isinstance(key, str | int)]:
            return f"the key {wrong[0]!r} at {where}"
    elif type(value) in (list, tuple):
        parts = [(held, f"{where}[{number}]") for number, held in enumerate(value)]
    elif type(value) not in _KEPT and not isinstance(value, Tensor):
        return f"{type(value).__name__} at {where}"
    return next((found for held, at in parts if (found := _not_kept(held, at)) is not None), None)
