"""Which edges a layer selects: the exact threshold of its `kept` highest scores, for all layers in one call.

A score becomes an int32 key that orders as the score ranks. `abs`: the bits of |s|. `raw`: the bits of s, those of a
negative number with all but the sign inverted, and -0.0 as +0.0. Below every number stands NAN_KEY, below that
REMOVED_KEY, which an edge has that hard pruning removed. Edges of equal key rank by flat index, the smaller first, so
the threshold is a pair (tau, last_tied), and an edge is selected iff

    key > tau  or  key == tau and index <= last_tied,    and it is a survivor.

`last_tied` is n - 1 where every edge with key tau is selected. With fewer survivors than `kept`, tau is NAN_KEY and
last_tied is n - 1: every survivor is selected.

On the GPU it is a radix select (kernels/select/gpu.py). On the CPU a sample of the keys brackets the threshold and
one pass finds it (kernels/select/cpu.py).
"""

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from supermask.kernels.base.keys import score_keys
from supermask.kernels.base.launch import define_op
from supermask.kernels.select.arguments import check_counts, check_layer
from supermask.kernels.select.cpu import select_layer
from supermask.kernels.select.gpu import select_triton
from supermask.kernels.select.native import select_native

__all__ = ["select", "selected"]


def selected(scores: Tensor, tau: Tensor, last_tied: Tensor, absolute: bool) -> Tensor:
    """Which edges a threshold selects, survivors or not: boolean [rows, cols].

    Args:
        scores: float32 of any shape; its first dimension is rows.
        tau: the threshold's key, int32, one element of any shape.
        last_tied: flat index of the last edge selected of those with key tau, int64, one element of any shape.
        absolute: whether edges rank by |score| or by score.
    """
    keys = score_keys(scores, absolute).reshape(scores.shape[0], -1)
    edges = torch.arange(keys.numel(), device=keys.device).view(keys.shape)
    tau, last_tied = tau.reshape(()), last_tied.reshape(())
    return (keys > tau) | ((keys == tau) & (edges <= last_tied))


def _select_cpu(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Optional[Tensor]], absolute: bool
) -> tuple[Tensor, Tensor]:
    counts = check_counts(scores, kept)
    found = [select_layer(s, count, alive, absolute) for s, count, alive in zip(scores, counts, survivors, strict=True)]
    tau = torch.tensor([key for key, _ in found], dtype=torch.int32)
    return tau, torch.tensor([last for _, last in found], dtype=torch.int64)


def _select_fake(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Optional[Tensor]], absolute: bool
) -> tuple[Tensor, Tensor]:
    return kept.new_empty(len(scores), dtype=torch.int32), kept.new_empty(len(scores))


_select = define_op(
    "select",
    triton_impl=select_triton,
    torch_impl=_select_cpu,
    native_impl=select_native,
    fake=_select_fake,
)


def select(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Optional[Tensor]], absolute: bool = True
) -> tuple[Tensor, Tensor]:
    """The threshold of every layer: exactly `kept` of its edges lie on or above it, or every survivor where fewer are.

    Args:
        scores: of each layer, float32 [rows, ...], contiguous.
        kept: of each layer the edges to keep, 1 to all; int64 [layers], on the scores' device. Its values are checked
            on the CPU only: on a GPU that would wait for the device.
        survivors: of each layer the packed bits of the edges that may be selected, int32 [rows, words]; None is all.
        absolute: rank by |score| (`abs`) or by score (`raw`).

    Returns:
        tau, int32 [layers], the key of each threshold, and last_tied, int64 [layers], the flat index of the last edge
        selected of those with key tau (see `selected`).

    Raises:
        TypeError: a tensor has the wrong dtype.
        ValueError: lengths, shapes, layouts or devices disagree, or on the CPU a count is out of range.
    """
    if kept.dtype is not torch.int64:
        raise TypeError(f"kept is {kept.dtype}: expected torch.int64")
    if kept.shape != (len(scores),) or len(survivors) != len(scores):
        raise ValueError(
            f"{len(scores)} layers of scores, kept of shape {tuple(kept.shape)}, {len(survivors)} survivors: expected "
            "one of each for each layer (survivors may be None)"
        )
    for layer, (s, alive) in enumerate(zip(scores, survivors, strict=True)):
        check_layer(layer, s, alive, kept.device)
    found: tuple[Tensor, Tensor] = _select([s.detach() for s in scores], kept.contiguous(), list(survivors), absolute)
    return found
