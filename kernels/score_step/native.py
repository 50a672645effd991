"""score_step on CPU through the C extension (kernels/csrc/search.c): a step and the next selection in one pass."""

from collections.abc import Sequence
from typing import Optional

from torch import Tensor

from supermask.kernels.select.native import Layers


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
