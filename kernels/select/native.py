"""The ops of a search step on CPU through the C extension (kernels/csrc/search.c): an op reads each layer once.

Arguments and results are those of the ops (kernels/select/op.py, subnet.py, score_step.py); float64 goes to the PyTorch
path.
"""

from collections.abc import Sequence
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base import native

# layer_t of search.c: 8 bytes a field.
_LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "scores", "survivors", "rows", "cols", "words", "kept", "low", "high", "room", "capacity", "grad",
            "momentum", "signs", "base", "constant", "tau", "last_tied", "first_chunk", "above", "inside",
        )
    ]
)  # fmt: skip
_WHOLE = 1 << 16  # a layer of fewer edges has room for all its keys, and needs no sample to begin with


class Layers:
    """The table of layers that `sm_select` reads and fills, with room for the keys it gathers."""

    def __init__(self, scores: Sequence[Tensor], kept: Sequence[int], survivors: Sequence[Optional[Tensor]]) -> None:
        self.table = table = np.zeros(len(scores), _LAYER)
        edges = np.array([s.numel() for s in scores], np.int64)
        table["rows"] = [s.shape[0] for s in scores]
        table["cols"] = edges // table["rows"]
        table["words"] = 4 * -(-table["cols"] // 128)
        table["kept"] = kept
        table["low"] = 1  # above high: no bracket
        table["capacity"] = np.where(edges < _WHOLE, edges, edges // 8)
        self.point_to("scores", scores)
        self.point_to("survivors", survivors)
        ends = 2 * table["capacity"].cumsum()
        self._room = torch.empty(int(ends[-1]) if len(ends) else 0, dtype=torch.int32)
        table["room"] = self._room.data_ptr() + 4 * (ends - 2 * table["capacity"])

    def point_to(self, field: str, tensors: Sequence[Optional[Tensor]]) -> None:
        """Fill one field with addresses; the caller keeps the tensors."""
        self.table[field] = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]

    def select(self, absolute: bool, sgd: Optional[tuple[float, float, float, bool]] = None) -> tuple[Tensor, Tensor]:
        """tau and last_tied of every layer; with `sgd` (lr, momentum, weight decay, Nesterov) after a step of it."""
        lr, momentum, weight_decay, nesterov = sgd or (0.0, 0.0, 0.0, False)
        plain = absolute, sgd is not None, lr, momentum, weight_decay, nesterov
        native.call("sm_select", "pliifffi", self.table.ctypes.data, len(self.table), *plain)
        return torch.from_numpy(self.table["tau"].astype(np.int32)), torch.from_numpy(self.table["last_tied"].copy())


def select_native(
    scores: Sequence[Tensor], kept: Sequence[int], survivors: Sequence[Optional[Tensor]], absolute: bool
) -> tuple[Tensor, Tensor]:
    return Layers(scores, kept, survivors).select(absolute)
