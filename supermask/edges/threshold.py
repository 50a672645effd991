"""How the edges of one layer are selected: its threshold, and who may know it beforehand."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Threshold:
    """Of one layer: an edge is selected whose key is above tau, or is tau and whose flat index is at most last_tied.

    Attributes:
        tau, last_tied: int32 [1] and int64 [1] (kernels/select/op.py).
    """

    tau: Tensor
    last_tied: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What a layer's forward goes by.

    Attributes:
        threshold: selected beforehand, of these very scores; None selects at each forward.
        straight_through: whether the gradient of the scores is that of the scores, or (False) still that of the
            effective weights, for an optimiser that completes it (supermask/training/score_sgd.py).
    """

    threshold: Threshold | None = None
    straight_through: bool = True


BY_ITSELF = Selection()
