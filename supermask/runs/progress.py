"""What a run shows while it goes on, and the tables it ends with."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from supermask.runs.console import table
from supermask.runs.records import CycleResult, Epoch
from supermask.training.loop import Duration


class RunProgress:
    """A progress bar over all training steps of a run: loss, accuracy, remaining, dying ratio, time left.

    Args:
        steps: of the whole run.
        cycles: of the whole run.
        console: where to draw.
    """

    def __init__(self, steps: int, cycles: int, console: Console) -> None:
        self._cycles = cycles
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),  # all of it fits 80 columns
            TextColumn("{task.fields[state]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task(f"cycle 1/{cycles}", total=steps, state="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self) -> None:
        """One step was taken."""
        self._bar.advance(self._task)

    def skip(self, steps: int) -> None:
        """These steps were taken before the run was stopped."""
        self._bar.update(self._task, completed=steps)

    def show(self, epoch: Epoch, took: Duration | None = None) -> None:
        """State at the end of an epoch; waiting for data is shown where it is worth knowing."""
        waits = f" waiting {took.data_wait:.0%}" if took and took.data_wait >= 0.05 else ""
        right = "" if epoch.train_accuracy is None else f"acc {epoch.train_accuracy:.1%} "
        self._bar.update(
            self._task,
            description=f"cycle {epoch.cycle}/{self._cycles}",
            state=f"loss {epoch.loss:.3f} {right}remaining {epoch.remaining:.1%} dying {epoch.dying:.1%}{waits}",
        )


def cycle_table(title: str, results: Sequence[CycleResult]) -> Table:
    """One row a cycle: remaining, kept edges, accuracy before and after recalibration, dying ratio, dead units."""
    columns = "cycle", "remaining", "kept edges", "accuracy", "recalibrated", "dying ratio", "dead units"
    return table(title, columns, [_row(result) for result in results])


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
