"""TensorBoard event files beside the metrics."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class EventFiles:
    """Writes each number of an event as the scalar EVENT/NAME, over training steps.

    Args:
        path: folder of the event files; those of a run that was stopped are written again.
        events: the metrics that a run which is resumed has so far.

    Raises:
        ValueError: TensorBoard is not installed.
    """

    def __init__(self, path: Path, events: Iterable[Mapping[str, Any]]) -> None:
        writer = event_writer()
        for old in path.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = writer(str(path))
        self._step = 0
        for event in events:
            self(event)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Write the numbers of an event; one without a step is at the last that had it."""
        self._step = event.get("step", self._step)
        numbers = dict(event)
        for group in ("measures", "measures_recalibrated"):
            numbers |= {f"{group}/{name}": value for name, value in event.get(group, {}).items()}
        for name, value in numbers.items():
            if isinstance(value, int | float) and name not in ("step", "epoch", "cycle"):
                self._writer.add_scalar(f"{event['event']}/{name}", value, self._step)
        self._writer.flush()

    def close(self) -> None:
        """End the files."""
        self._writer.close()


def event_writer() -> Any:
    """The class that writes event files.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError('tensorboard is not installed: pip install "supermask[tensorboard]"') from error
    return SummaryWriter
