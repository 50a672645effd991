"""The ops of a search step on CPU through the C extension (kernels/csrc/search.c): an op reads each layer once.

Arguments and results are those of the ops (kernels/threshold.py, subnet.py, score_step.py); float64 goes to the PyTorch
path.
"""

from collections.abc import Sequence
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from kernels import native
from kernels.bits import words_per_row

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


def subnet_native(
    scores: Tensor,
    tau: Tensor,
    last_tied: Tensor,
    survivors: Optional[Tensor],
    constant: Tensor,
    signs: Optional[Tensor],
    base: Optional[Tensor],
    absolute: bool,
    dtype: torch.dtype,
    ever: Optional[Tensor],
) -> tuple[Tensor, Tensor]:
    """Weights, in float32 or 16 bits, and mask; `signs` are packed words wherever `base` is None."""
    rows = scores.shape[0]
    cols = scores.numel() // rows
    weight = torch.empty(scores.shape, dtype=dtype)
    mask = torch.empty(rows, words_per_row(cols), dtype=torch.int32)
    constant = constant.to(dtype)
    base = None if base is None else base.to(dtype)
    tensors = survivors, constant, signs, base, weight, mask, ever
    sizes = rows, cols, words_per_row(cols), absolute, dtype.itemsize
    native.call("sm_subnet", "pilppppppplllii", scores, int(tau), int(last_tied), *tensors, *sizes)
    return weight, mask


def subnet_backward_native(
    grad_weight: Tensor,
    scores: Tensor,
    survivors: Optional[Tensor],
    constant: Tensor,
    signs: Optional[Tensor],
    base: Optional[Tensor],
    absolute: bool,
) -> Tensor:
    """Gradient of the scores; `grad_weight` of any floating dtype and layout."""
    rows = scores.shape[0]
    grad_weight = grad_weight.to(torch.float32).contiguous()
    grad = torch.empty_like(scores)
    cols = scores.numel() // rows
    tensors = grad_weight, scores, survivors, constant, signs, base, grad
    native.call("sm_subnet_backward", "pppppppllli", *tensors, rows, cols, words_per_row(cols), absolute)
    return grad


def packed_weight_native(
    mask: Tensor, constant: Tensor, signs: Optional[Tensor], base: Optional[Tensor], out: Tensor
) -> None:
    """Fill `out` [rows, ...], float32 or 16 bits, with weights; `signs` are packed words wherever `base` is None."""
    constant = constant.to(out.dtype)
    base = None if base is None else base.to(out.dtype)
    cols = out.numel() // out.shape[0]
    sizes = out.shape[0], cols, words_per_row(cols), out.dtype.itemsize
    native.call("sm_packed_weight", "pppppllli", mask, constant, signs, base, out, *sizes)


def score_step_native(
    scores: Sequence[Tensor],
    grads: Sequence[Tensor],
    momenta: Sequence[Optional[Tensor]],
    survivors: Sequence[Optional[Tensor]],
    constants: Sequence[Tensor],
    signs: Sequence[Optional[Tensor]],
    bases: Sequence[Optional[Tensor]],
    kept: Sequence[int],
    brackets: Tensor,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
    absolute: bool,
) -> tuple[Tensor, Tensor]:
    """A step and the thresholds after it; `signs` are packed words wherever `bases` is None."""
    layers = Layers(scores, kept, survivors)
    found = brackets.numpy()
    layers.table["low"], layers.table["high"] = found.T
    for field, tensors in (
        ("grad", grads),
        ("momentum", momenta),
        ("constant", constants),
        ("signs", signs),
        ("base", bases),
    ):
        layers.point_to(field, tensors)
    threshold = layers.select(absolute, (lr, momentum, weight_decay, nesterov))
    found[:, 0], found[:, 1] = layers.table["low"], layers.table["high"]
    return threshold
