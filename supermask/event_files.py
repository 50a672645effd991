"""TensorBoard event files beside the metrics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class EventFiles:
    """Writes each number of an event as the scalar EVENT/NAME, over training steps.

    Args:
        path: folder of the event files.
        step: training steps that were taken before a resumed run was stopped; what stands after them is dropped.

    Raises:
        ValueError: TensorBoard is not installed.
    """

    def __init__(self, path: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError('tensorboard is not installed: pip install "supermask[tensorboard]"') from error
        self._writer = SummaryWriter(str(path), purge_step=step + 1 if step else None)
        self._step = step

    def __call__(self, event: str, values: Mapping[str, Any]) -> None:
        """Write the numbers among `values`; an event without a step is at the last one that had it."""
        self._step = values.get("step", self._step)
        for name, value in values.items():
            if isinstance(value, int | float) and name not in ("step", "epoch", "cycle"):
                self._writer.add_scalar(f"{event}/{name}", value, self._step)
        self._writer.flush()
