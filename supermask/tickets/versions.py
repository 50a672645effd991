"""What the layers of older tickets say, as those of version 3 say it.

Version 1 had one coat a layer, raw. Version 2 had a list of coats, flips or null, and the constant beside them.
"""

from collections.abc import Mapping
from typing import Any

from supermask.edges.stored import coat_names
from supermask.tickets.errors import TicketError, short
from supermask.tickets.fields import check_fields
from supermask.tickets.names import MOST_COATS

__all__ = ["HEADER", "VERSION", "layer_of"]

VERSION = 3

_HEADER: Mapping[str, Any] = {
    "version": int, "prng": dict, "seed": int, "architecture": (dict, type(None)), "layers": list, "folded": list,
    "narrowed": bool, "sha256": str,
}  # fmt: skip
HEADER: Mapping[int, Mapping[str, Any]] = {
    1: {name: kind for name, kind in _HEADER.items() if name not in ("folded", "narrowed")},
    2: _HEADER,
    3: _HEADER,
}
"""Fields of the header, by version."""

_COMMON = {"name": str, "index": int, "shape": list, "weights": str, "generation": int}
_LAYER: Mapping[int, Mapping[str, Any]] = {
    1: {**_COMMON, "constant": float, "coats": int, "kept": int, "encoding": str},
    2: {**_COMMON, "constant": float, "coats": list, "flips": (dict, type(None))},
    3: {**_COMMON, "planes": dict, "values": dict},
}


def layer_of(where: str, value: Any, version: int) -> dict[str, Any]:
    """A layer with the fields of version 3, whose planes and values are still to be checked.

    Raises:
        TicketError: it has not the fields of its version.
    """
    check_fields(where, value, _LAYER[version])
    if version == VERSION:
        found: dict[str, Any] = value
        return found
    where = f"{where} ({short(value['name'])})"
    planes = _planes_1(where, value) if version == 1 else _planes_2(where, value)
    values = {"constant": {"coding": "float32", "value": value["constant"]}}
    return {**{name: value[name] for name in _COMMON}, "planes": planes, "values": values}


def _planes_1(where: str, value: Mapping[str, Any]) -> dict[str, Any]:
    if value["coats"] != 1 or value["encoding"] != "raw":
        raise TicketError(
            f"{where}: {short(value['coats'])} coats, encoding {short(value['encoding'])}: version 1 has 1 coat, 'raw'"
        )
    return {"mask": {"kept": value["kept"], "encoding": "raw"}}


def _planes_2(where: str, value: Mapping[str, Any]) -> dict[str, Any]:
    coats, flips = value["coats"], value["flips"]
    if not 1 <= len(coats) <= MOST_COATS:
        raise TicketError(f"{where}: {len(coats)} coats: expected 1 to {MOST_COATS}")
    planes = dict(zip(coat_names(len(coats)), coats, strict=True))
    return planes if flips is None else {**planes, "flips": flips}
