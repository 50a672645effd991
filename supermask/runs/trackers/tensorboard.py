"""TensorBoard event files in a run folder."""

from collections.abc import Mapping
from typing import Any

from supermask.runs.hook import Begun
from supermask.runs.options import RecipeError
from supermask.runs.trackers.telling import Tracker, settings_of


class TensorBoard(Tracker):
    """Event files in the run folder's `tensorboard`; the option --run.tensorboard is this hook.

    They have scalars over training steps, and the settings as text. A run that goes on writes them again.

    Raises:
        RecipeError: TensorBoard is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._make = event_writer()
        self._writer: Any = None

    def begin(self, run: Begun) -> None:
        path = run.folder / "tensorboard"
        for old in path.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = self._make(str(path))
        rows = "".join(f"| {name} | {value} |\n" for name, value in settings_of(run).items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")
        self.go_on(run, told=0)

    def tell(self, found: Mapping[str, float], *, step: int, number: int) -> None:
        for name, value in found.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def event_writer() -> Any:
    """The class that writes event files.

    Raises:
        RecipeError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RecipeError('tensorboard is not installed: pip install "supermask[tensorboard]"') from error
    return SummaryWriter
