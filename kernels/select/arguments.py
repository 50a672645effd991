"""What a selection is given, checked."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from supermask.kernels.base.bits import words_per_row

MOST_COATS = 64


def check_kept(layers: int, kept: Tensor) -> None:
    """Raise TypeError or ValueError unless `kept` is int64 [layers] or [layers, coats]."""
    if kept.dtype is not torch.int64:
        raise TypeError(f"kept is {kept.dtype}: expected torch.int64")
    coats = kept.shape[1] if kept.ndim == 2 else 1
    if kept.ndim not in (1, 2) or len(kept) != layers or not 1 <= coats <= MOST_COATS:
        raise ValueError(
            f"{layers} layers of scores, kept of shape {tuple(kept.shape)}: expected [{layers}], or [{layers}, coats] "
            f"with 1 to {MOST_COATS} coats"
        )


def check_counts(scores: Sequence[Tensor], kept: Tensor) -> list[list[int]]:
    """`kept` as numbers, a list of coats a layer, for which the host waits.

    Raises:
        ValueError: one is not from 1 to the number of its layer's edges, or above that of the coat before.
    """
    counts: list[list[int]] = kept.view(len(scores), -1).tolist() if len(scores) else []
    for layer, (s, coats) in enumerate(zip(scores, counts, strict=True)):
        said = coats[0] if kept.ndim == 1 else coats
        if not all(1 <= count <= s.numel() for count in coats):
            raise ValueError(f"layer {layer}: kept is {said}: expected 1 to {s.numel()}, the layer's edges")
        if any(inner > outer for outer, inner in pairwise(coats)):
            raise ValueError(f"layer {layer}: kept is {said}: coats nest, so give their counts from the widest")
    return counts


def check_layer(layer: int, scores: Tensor, survivors: Tensor | None, device: torch.device) -> None:
    """Raise TypeError or ValueError unless a layer's scores and survivors are what select takes, on `device`."""
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
