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

from supermask.kernels.base.bits import words_per_row
from supermask.kernels.base.keys import NAN_KEY, REMOVED_KEY, score_key, score_keys
from supermask.kernels.base.launch import define_op
from supermask.kernels.select.cpu import select_layer
from supermask.kernels.select.gpu import layer_rows, on_device, select_launches
from supermask.kernels.select.native import select_native

__all__ = ["NAN_KEY", "REMOVED_KEY", "score_key", "score_keys", "select", "selected"]


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


def check_counts(scores: Sequence[Tensor], kept: Tensor) -> list[int]:
    """`kept` as numbers, for which the host waits.

    Raises:
        ValueError: one is not from 1 to the number of its layer's edges.
    """
    counts: list[int] = kept.tolist()
    for layer, (s, count) in enumerate(zip(scores, counts, strict=True)):
        if not 1 <= count <= s.numel():
            raise ValueError(f"layer {layer}: kept is {count}: expected 1 to {s.numel()}, the layer's edges")
    return counts


def _select_torch(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Optional[Tensor]], absolute: bool
) -> tuple[Tensor, Tensor]:
    counts = check_counts(scores, kept)
    found = [select_layer(s, count, alive, absolute) for s, count, alive in zip(scores, counts, survivors, strict=True)]
    tau = torch.tensor([key for key, _ in found], dtype=torch.int32)
    return tau, torch.tensor([last for _, last in found], dtype=torch.int64)


def _select_native(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Optional[Tensor]], absolute: bool
) -> tuple[Tensor, Tensor]:
    return select_native(scores, check_counts(scores, kept), survivors, absolute)


def _select_triton(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Optional[Tensor]], absolute: bool
) -> tuple[Tensor, Tensor]:
    table, layer_of = on_device(layer_rows(scores, survivors), kept.device)
    tau, last_tied, _ = select_launches(table, table, layer_of, kept, absolute)
    return tau, last_tied


def _select_fake(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Optional[Tensor]], absolute: bool
) -> tuple[Tensor, Tensor]:
    return kept.new_empty(len(scores), dtype=torch.int32), kept.new_empty(len(scores))


_select = define_op(
    "select",
    triton_impl=_select_triton,
    torch_impl=_select_torch,
    native_impl=_select_native,
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


def check_layer(layer: int, scores: Tensor, survivors: Optional[Tensor], device: torch.device) -> None:
    if scores.dtype is not torch.float32:
        raise TypeError(f"layer {layer}: scores are {scores.dtype}: expected torch.float32; convert them with .float()")
    if scores.ndim == 0 or scores.numel() == 0:
        raise ValueError(f"layer {layer}: scores have shape {tuple(scores.shape)}: expected [rows, ...] with an edge")
    if not scores.is_contiguous():
        raise ValueError(
            f"layer {layer}: scores have strides {scores.stride()} for shape {tuple(scores.shape)}: expected a "
            "contiguous tensor; keep them .contiguous(), so that no call has to copy them"
        )
    for name, tensor in (("scores", scores), ("survivors", survivors)):
        if tensor is not None and tensor.device != device:
            raise ValueError(f"layer {layer}: {name} are on {tensor.device}, kept on {device}: use one device")
    if survivors is None:
        return
    if survivors.dtype is not torch.int32:
        raise TypeError(f"layer {layer}: survivors are {survivors.dtype}: expected packed bits in torch.int32")
    cols = scores.numel() // scores.shape[0]
    if cols >= 2**31:
        raise ValueError(f"layer {layer}: {cols} columns: survivors are supported up to {2**31 - 1} columns")
    shape = (scores.shape[0], words_per_row(cols))
    if survivors.shape != shape or not survivors.is_contiguous():
        raise ValueError(
            f"layer {layer}: survivors have shape {tuple(survivors.shape)} and strides {survivors.stride()}: expected "
            f"contiguous packed bits {shape} for scores of shape {tuple(scores.shape)} "
            "(supermask.kernels.base.bits.pack)"
        )
