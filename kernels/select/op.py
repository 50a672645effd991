"""Which edges a layer selects: the exact threshold of its `kept` highest scores, for all layers in one call.

A score becomes an int32 key that orders as the score ranks. `abs`: the bits of |s|. `raw`: the bits of s, those of a
negative number with all but the sign inverted, and -0.0 as +0.0. Below every number stands NAN_KEY, below that
REMOVED_KEY, which an edge has that hard pruning removed. Edges of equal key rank by flat index, the smaller first, so
the threshold is a pair (tau, last_tied), and an edge is selected iff

    key > tau  or  key == tau and index <= last_tied,    and it is a survivor.

`last_tied` is n - 1 where every edge with key tau is selected. With fewer survivors than `kept`, tau is NAN_KEY and
last_tied is n - 1: every survivor is selected.

A layer may have several coats, of counts that do not rise: a threshold a coat, all of one order, so coats nest.

On the GPU it is a radix select (kernels/select/gpu.py). On the CPU a sample of the keys brackets the threshold and
one pass finds it (kernels/select/cpu.py).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from supermask.kernels.base.bits import unpack
from supermask.kernels.base.keys import NAN_KEY, REMOVED_KEY, Threshold, score_keys
from supermask.kernels.base.launch import define_op
from supermask.kernels.select.arguments import check_counts, check_kept, check_layer
from supermask.kernels.select.cpu import select_layer
from supermask.kernels.select.gpu import select_triton
from supermask.kernels.select.native import select_native

__all__ = ["select", "selected"]


def reference(scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Tensor | None], absolute: bool) -> Threshold:
    """The order itself, from a stable sort."""
    tau, last_tied = torch.empty(kept.shape, dtype=torch.int32), torch.empty(kept.shape, dtype=torch.int64)
    for layer, (s, counts, alive) in enumerate(zip(scores, check_counts(scores, kept), survivors, strict=True)):
        keys = score_keys(s, absolute).reshape(s.shape[0], -1)
        if alive is not None:
            keys = torch.where(unpack(alive, keys.shape[1]), keys, REMOVED_KEY)
        ranked, order = keys.flatten().sort(descending=True, stable=True)
        place, end = torch.tensor(counts) - 1, len(ranked) - 1
        key, edge = ranked[place], order[place]
        all_tied = (place == end) | (ranked[(place + 1).clamp(max=end)] < key)
        tau[layer] = key.clamp(min=NAN_KEY).view(kept[layer].shape)
        last_tied[layer] = torch.where(all_tied | (key == REMOVED_KEY), end, edge).view(kept[layer].shape)
    return Threshold(tau, last_tied)


def selected(scores: Tensor, threshold: Threshold, absolute: bool) -> Tensor:
    """Which edges a threshold selects, survivors or not: boolean [rows, cols], or of several coats [coats, rows, cols].

    Args:
        scores: float32 of any shape; its first dimension is rows.
        threshold: of one coat, one element of any shape, or of several, [coats].
        absolute: whether edges rank by |score| or by score.
    """
    keys = score_keys(scores, absolute).reshape(scores.shape[0], -1)
    edges = torch.arange(keys.numel(), device=keys.device).view(keys.shape)
    each = () if threshold.tau.numel() == 1 else (-1, 1, 1)
    tau, last_tied = threshold.tau.reshape(each), threshold.last_tied.reshape(each)
    return (keys > tau) | ((keys == tau) & (edges <= last_tied))


def _select_cpu(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Tensor | None], absolute: bool
) -> Threshold:
    counts = check_counts(scores, kept)
    found = [select_layer(s, coats, alive, absolute) for s, coats, alive in zip(scores, counts, survivors, strict=True)]
    tau = torch.tensor([key for layer in found for key, _ in layer], dtype=torch.int32)
    last_tied = torch.tensor([last for layer in found for _, last in layer], dtype=torch.int64)
    return Threshold(tau.view(kept.shape), last_tied.view(kept.shape))


def _select_fake(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Tensor | None], absolute: bool
) -> tuple[Tensor, Tensor]:
    return kept.new_empty(kept.shape, dtype=torch.int32), kept.new_empty(kept.shape)


_select = define_op(
    "select",
    triton_impl=select_triton,
    torch_impl=_select_cpu,
    native_impl=select_native,
    schema="(Tensor[] scores, Tensor kept, Tensor?[] survivors, bool absolute) -> (Tensor, Tensor)",
    fake=_select_fake,
)


def select(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Tensor | None], absolute: bool = True
) -> Threshold:
    """The threshold of every layer: exactly `kept` of its edges lie on or above it, or every survivor where fewer are.

    Args:
        scores: of each layer, float32 [rows, ...], contiguous.
        kept: of each layer the edges to keep, 1 to all; int64 [layers], or [layers, coats] with those of 1 to 64 coats,
            from the widest; on the scores' device. Its values are checked on the CPU only: on a GPU that would wait for
            the device.
        survivors: of each layer the packed bits of the edges that may be selected, int32 [rows, words]; None is all.
        absolute: rank by |score| (`abs`) or by score (`raw`).

    Returns:
        In the shape of `kept`: tau, int32, the key of each threshold, and last_tied, int64, the flat index of the last
        edge selected of those with key tau (see `selected`).

    Raises:
        TypeError: a tensor has the wrong dtype.
        ValueError: lengths, shapes, layouts or devices disagree, or on the CPU a count is out of range or above that of
            the coat before.
    """
    check_kept(len(scores), kept)
    if len(survivors) != len(scores):
        raise ValueError(f"{len(scores)} layers of scores, {len(survivors)} survivors: expected one a layer, or None")
    for layer, (s, alive) in enumerate(zip(scores, survivors, strict=True)):
        check_layer(layer, s, alive, kept.device)
    found = _select([s.detach() for s in scores], kept.contiguous(), list(survivors), absolute)
    return Threshold(*found)
