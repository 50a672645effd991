"""What a run shows while it goes on, and the tables it ends with."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from supermask.runs.console import table
from supermask.runs.records import CycleResult, Epoch
from supermask.training.loop import Duration


class RunProgress:
    """Two lines of a terminal of 80 columns: how far a run is, with the time left of the cycle and of the run, and the
    state at the end of the last epoch.

    Args:
        steps: of the whole run.
        cycles: of the whole run.
        console: where to draw.
        lengths: steps of each cycle; by default they are alike.
        clock: seconds; by default the console's.
    """

    def __init__(
        self,
        steps: int,
        cycles: int,
        console: Console,
        lengths: Sequence[int] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._cycles = cycles
        self._ends = list(accumulate(lengths or [steps // max(cycles, 1)] * cycles))
        left = _Left(self._left)
        bar = BarColumn(bar_width=8)
        self._bar = _TwoLines(TextColumn("{task.description}"), bar, left, console=console, get_time=clock)
        self._task = self._bar.add_task(self._named(0), total=steps)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self) -> None:
        """One step was taken."""
        done = int(self._bar.tasks[self._task].completed) + 1
        self._bar.update(self._task, advance=1, description=self._named(done))

    def skip(self, steps: int) -> None:
        """These steps were taken before the run was stopped."""
        self._bar.update(self._task, completed=steps, description=self._named(steps))

    def show(self, epoch: Epoch, took: Duration | None = None) -> None:
        """State at the end of an epoch; waiting for data is shown where it is worth knowing."""
        waits = f" waiting {took.data_wait:.0%}" if took and took.data_wait >= 0.05 else ""
        right = "" if epoch.train_accuracy is None else f"acc {epoch.train_accuracy:.1%} "
        held = "" if epoch.validation is None else f"held out {epoch.validation:.1%} "
        self._bar.state = (
            f"loss {epoch.loss:.3f} {right}{held}remaining {epoch.remaining:.1%} dying {epoch.dying:.1%}{waits}"
        )
        self._bar.update(self._task, description=f"cycle {epoch.cycle}/{self._cycles}")

    def _cycle_of(self, done: int) -> int:
        """The cycle, from 0, of the last of so many steps."""
        return max(0, min(bisect_left(self._ends, done), len(self._ends) - 1))

    def _named(self, done: int) -> str:
        return f"cycle {self._cycle_of(done) + 1}/{self._cycles}"

    def _left(self, task: Task) -> str:
        done, steps = int(task.completed), int(task.total or 0)
        end = self._ends[self._cycle_of(done)] if self._ends else steps
        speed = task.finished_speed or task.speed
        return f"left {_time(end - done, speed)} of the cycle, {_time(steps - done, speed)} of the run"


class _Left(ProgressColumn):
    """What `said` says of a task."""

    max_refresh = 0.5

    def __init__(self, said: Callable[[Task], str]) -> None:
        super().__init__()
        self._said = said

    def render(self, task: Task) -> Text:
        return Text(self._said(task), style="progress.remaining")


class _TwoLines(Progress):
    """Tasks, and below them a line of text."""

    state = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.state:
            yield Text(self.state, no_wrap=True, overflow="ellipsis")


def _time(steps: int, speed: float | None) -> str:
    """Hours, minutes and seconds that so many steps take; dashes where nothing is known yet."""
    if steps > 0 and not speed:
        return "-:--:--"
    seconds = round(steps / speed) if speed else 0
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def cycle_table(title: str, results: Sequence[CycleResult]) -> Table:
    """One row a cycle: remaining, kept edges, accuracy before and after recalibration, dying ratio, dead units, and
    accuracy on held-out images where that was measured."""
    columns = ["cycle", "remaining", "kept edges", "accuracy", "recalibrated", "dying ratio", "dead units"]
    rows = [_row(result) for result in results]
    if any(result.validation is not None for result in results):
        columns.append("held out")
        rows = [(*row, _held_out(result)) for row, result in zip(rows, results, strict=True)]
    return table(title, columns, rows)


def _held_out(row: CycleResult) -> str:
    picked = "" if row.picked is None else f" (epoch {row.picked})"
    return "-" if row.validation is None else f"{row.validation:.2%}{picked}"


def _row(row: CycleResult) -> tuple[str, ...]:
    pinned = abs(row.remaining - row.rate) * row.edges > len(row.dead_units)  # more than the rounding of each layer
    return (
        str(row.cycle),
        f"{row.remaining:.2%}" + (f" ({row.rate:.2%} unpinned)" if pinned else ""),
        f"{row.kept:,}",
        "-" if row.accuracy is None else f"{row.accuracy:.2%}",
        "-" if row.recalibrated is None else f"{row.recalibrated:.2%}",
        f"{row.dying:.3f}",
        f"{row.dead}",
    )
