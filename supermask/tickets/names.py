"""The planes and values that a layer of a ticket can have: what each is, what it ranges over, what it needs.

A name to come is a row here and its use: edges say what is stored of them (`Edges.stored`) and are made of it
(`PackedEdges.of`). docs/ticket-format.md and docs/read_ticket.py go by the same names.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from supermask.edges.draws import WeightInit
from supermask.edges.packed import SIGNED
from supermask.edges.stored import Stored, coat_names
from supermask.tickets.errors import TicketError, short
from supermask.tickets.fields import check_fields, choices

__all__ = ["CODINGS", "MOST_COATS", "PLANES", "VALUES", "check_planes", "check_storing", "check_values"]

MOST_COATS = 64


@dataclass(frozen=True, kw_only=True)
class PlaneName:
    """A plane of bits.

    Attributes:
        what: it is, in errors.
        within: the plane whose set bits are the edges that this one has bits for; None: every edge has a bit.
        required: whether each layer has it.
        weights: that can have it.
    """

    what: str
    within: str | None
    required: bool = False
    weights: tuple[str, ...] = get_args(WeightInit)


@dataclass(frozen=True, kw_only=True)
class ValueName:
    """A number.

    Attributes:
        coding: how it is stored, a name of `CODINGS`.
        least: it can be.
        required: whether each layer has it.
    """

    coding: str
    least: float
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How a value is written in JSON: of which type, within which bounds, exact in which of NumPy's."""

    json: type
    most: float
    exact: Any
    says: str


_COATS = coat_names(MOST_COATS)
PLANES: Mapping[str, PlaneName] = {  # in the order in which they are read: a plane comes after the one it is within
    "mask": PlaneName(what="its mask", within=None, required=True),
    **{
        name: PlaneName(what=f"coat {number}", within=before)
        for number, (before, name) in enumerate(pairwise(_COATS), start=1)
    },
    "flips": PlaneName(what="its flips", within="mask", weights=SIGNED),
}
VALUES: Mapping[str, ValueName] = {"constant": ValueName(coding="float32", least=0.0, required=True)}
CODINGS: Mapping[str, Coding] = {
    "float32": Coding(json=float, most=float(np.finfo(np.float32).max), exact=np.float32, says="a finite float32")
}
_KNOWN_PLANES = f"'mask', 'mask.1' to {_COATS[-1]!r}, 'flips'"


def check_planes(where: str, names: Collection[str], weights: str) -> list[str]:
    """The planes of a layer in the order of `PLANES`.

    Raises:
        TicketError: one is unknown, missing, without the plane that it is within, or not for such weights.
    """
    for name in names:
        if name not in PLANES:
            raise TicketError(
                f"{where}: plane {short(name)}, and this release reads {_KNOWN_PLANES}: upgrade supermask"
            )
        kind = PLANES[name]
        if kind.within is not None and kind.within not in names:
            raise TicketError(
                f"{where}: plane {name!r} has bits for the edges of plane {kind.within!r}, and there is none"
            )
        if weights not in kind.weights:
            raise TicketError(
                f"{where}: plane {name!r}, but its weights are {weights!r}: it is for {choices(kind.weights)}"
            )
    for name, kind in PLANES.items():
        if kind.required and name not in names:
            raise TicketError(f"{where}: no plane {name!r}, which every layer has")
    return [name for name in PLANES if name in names]


def check_values(where: str, stored: Mapping[str, Any]) -> dict[str, float]:
    """The values of a layer in the order of `VALUES`.

    Args:
        stored: by name, `{"coding": ..., "value": ...}`.

    Raises:
        TicketError: one is unknown, missing, coded in an unknown way or out of its bounds.
    """
    for name, said in stored.items():
        if name not in VALUES:
            raise TicketError(
                f"{where}: value {short(name)}, and this release reads {choices(VALUES)}: upgrade supermask"
            )
        check_fields(f"{where}: value {name!r}", said, {"coding": str, "value": object})
        kind = VALUES[name]
        if said["coding"] != kind.coding:
            raise TicketError(
                f"{where}: value {name!r} has coding {short(said['coding'])}, and this release reads "
                f"{kind.coding!r}: upgrade supermask"
            )
        coding, value = CODINGS[kind.coding], said["value"]
        known = type(value) is coding.json
        if not known or not kind.least <= value <= coding.most or float(coding.exact(value)) != value:
            raise TicketError(f"{where}: {name} {short(value)}: expected {coding.says} from {kind.least:g}")
    for name, kind in VALUES.items():
        if kind.required and name not in stored:
            raise TicketError(f"{where}: no value {name!r}, which every layer has")
    return {name: stored[name]["value"] for name in VALUES if name in stored}


def check_storing(where: str, stored: Stored, weights: str) -> None:
    """Nothing, if a ticket can hold what is stored of edges with such weights.

    Raises:
        TicketError: it has no such name, or a name is missing, or a value is out of its bounds.
    """
    for what, names, known, says in (
        ("plane", stored.planes, PLANES, _KNOWN_PLANES),
        ("value", stored.values, VALUES, choices(VALUES)),
    ):
        if odd := sorted(names.keys() - known.keys()):
            raise TicketError(f"{where}: {what} {odd[0]!r} of its edges: a ticket has {says}, and no other")
    check_planes(where, stored.planes, weights)
    check_values(where, {name: {"coding": VALUES[name].coding, "value": one} for name, one in stored.values.items()})
