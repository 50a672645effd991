"""score_step on CPU through the C extension (kernels/csrc/search.c): a step and the next selection in one pass."""

from collections.abc import Sequence

from torch import Tensor

from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.sgd import Sgd
from supermask.kernels.base.theta import Theta
from supermask.kernels.select.arguments import check_counts
from supermask.kernels.select.native import Layers


def score_step_native(
    scores: Sequence[Tensor], grads: Sequence[Tensor], momenta: Sequence[Tensor], survivors: Sequence[Tensor | None],
    thetas: Sequence[Theta], kept: Tensor, brackets: Tensor, sgd: Sgd, absolute: bool,
) -> Threshold:  # fmt: skip
    layers = Layers(scores, check_counts(scores, kept), survivors)
    found = brackets.numpy()
    layers.table["low"], layers.table["high"] = found.T
    signs = [t.needed_words(s.shape[0], s.numel() // s.shape[0]) for s, t in zip(scores, thetas, strict=True)]
    layers.point_to("grad", grads)
    layers.point_to("momentum", list(momenta) or [None] * len(scores))
    layers.point_to("constant", [theta.constant for theta in thetas])
    layers.point_to("signs", signs)
    layers.point_to("base", [theta.base for theta in thetas])
    threshold = layers.select(absolute, sgd)
    found[:, 0], found[:, 1] = layers.table["low"], layers.table["high"]
    return threshold
