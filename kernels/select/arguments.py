"""What a selection is given, checked."""

from collections.abc import Sequence

import torch
from torch import Tensor

from supermask.kernels.base.bits import words_per_row


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
