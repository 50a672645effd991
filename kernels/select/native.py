"""select on CPU through the C extension (kernels/csrc/search.c), which reads each layer once.

Its table of layers is that of score_step, too (kernels/score_step/native.py).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.sgd import Sgd
from supermask.kernels.select.arguments import check_counts

_WHOLE = 1 << 16  # a layer of fewer edges has room for all its keys, and needs no sample to begin with


class Layers:
    """The table that `sm_select` reads and fills, an entry a coat of each layer, with room for the keys it gathers."""

    def __init__(
        self, scores: Sequence[Tensor], kept: Sequence[Sequence[int]], survivors: Sequence[Tensor | None]
    ) -> None:
        self._coats = coats = len(kept[0]) if kept else 1
        self.table = table = np.zeros(len(scores) * coats, native.LAYER)
        edges = self._each([s.numel() for s in scores])
        table["rows"] = self._each([s.shape[0] for s in scores])
        table["cols"] = edges // table["rows"]
        table["words"] = 4 * -(-table["cols"] // 128)
        table["kept"] = np.array(kept, np.int64).reshape(-1)
        table["coats"][::coats] = coats
        table["low"] = 1  # above high: no bracket
        table["capacity"] = np.where(edges < _WHOLE, edges, edges // 8)
        self.point_to("scores", scores)
        self.point_to("survivors", survivors)
        ends = 2 * table["capacity"].cumsum()
        self._room = torch.empty(int(ends[-1]) if len(ends) else 0, dtype=torch.int32)
        table["room"] = self._room.data_ptr() + 4 * (ends - 2 * table["capacity"])

    def _each(self, numbers: Sequence[int]) -> Any:
        """Of each layer a number, for each of its coats."""
        return np.repeat(np.array(numbers, np.int64), self._coats)

    def point_to(self, field: str, tensors: Sequence[Tensor | None]) -> None:
        """Fill one field with addresses; the caller keeps the tensors."""
        self.table[field] = self._each([0 if tensor is None else tensor.data_ptr() for tensor in tensors])

    def select(self, absolute: bool, sgd: Sgd | None = None) -> Threshold:
        """The threshold of every entry; with `sgd` after a step of it."""
        rates = (0.0, 0.0, 0.0, False) if sgd is None else (sgd.lr.item(), *sgd[1:])
        table = self.table.ctypes.data, len(self.table)
        native.call("sm_select", "pliifffi", *table, absolute, sgd is not None, *rates)
        tau, last_tied = self.table["tau"].astype(np.int32), self.table["last_tied"].copy()
        return Threshold(torch.from_numpy(tau), torch.from_numpy(last_tied))


def select_native(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Tensor | None], absolute: bool
) -> Threshold:
    tau, last_tied = Layers(scores, check_counts(scores, kept), survivors).select(absolute)
    return Threshold(tau.view(kept.shape), last_tied.view(kept.shape))
