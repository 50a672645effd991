"""What a ticket keeps of a layer's edges: planes of bits and values, by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from supermask.checks import SupermaskError


class NotStorable(SupermaskError, ValueError):
    """Edges whose weights would not be made again from what is stored of them; the message says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """What a ticket keeps of edges beside their place and distribution (supermask/tickets/names.py has every name).

    Attributes:
        planes: packed int32 [rows, words] each. "mask": the selected edges; "mask.1", "mask.2", ...: further coats,
            each within the one before it; "flips": the selected edges whose sign is not the seed's.
        values: "constant", the magnitude of the weights.
    """

    planes: Mapping[str, Tensor]
    values: Mapping[str, float]

    @property
    def coats(self) -> list[Tensor]:
        return [self.planes[name] for name in coat_names(len(self.planes)) if name in self.planes]


def coat_names(count: int) -> list[str]:
    """The planes of the first so many coats."""
    return ["mask", *(f"mask.{number}" for number in range(1, count))]


def check_nested(coats: Sequence[Tensor] | Tensor) -> None:
    """Raise NotStorable unless each coat selects some edges of the one before it, and no other."""
    if any((outer & ~inner).any() for inner, outer in pairwise(coats)):
        raise NotStorable("its coats are not nested: each selects some edges of the one before it")
