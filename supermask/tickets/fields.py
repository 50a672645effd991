"""Objects of a ticket's header: which fields each has, and of what types."""

from collections.abc import Mapping
from typing import Any

from supermask.tickets.errors import TicketError, short

__all__ = ["check_fields", "choices"]


def check_fields(where: str, value: Any, kinds: Mapping[str, Any]) -> None:
    """`value` has the fields `kinds` and no other, each of its type, `object` being any; true and false are no
    integers.

    Raises:
        TicketError: it has not.
    """
    if type(value) is not dict or set(value) != set(kinds):
        found = short(sorted(value)) if type(value) is dict else type(value).__name__
        raise TicketError(f"{where}: found {found}, expected the fields {sorted(kinds)}")
    for name, kind in kinds.items():
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if kind is not object and type(value[name]) not in allowed:
            raise TicketError(
                f"{where}: {name} {short(value[name])}: expected {' or '.join(k.__name__ for k in allowed)}"
            )


def choices(names: Any) -> str:
    """Names in an error."""
    return ", ".join(map(repr, names))
