"""Settings that were added to a record after its first release.

Where such a field has its default, neither the record's text nor its JSON has it: runs of earlier releases, which are
found by their configurations, and folders of grids, which are named after that text, stay what they are.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import MappingProxyType
from typing import Any

from supermask.checks import hold_numbers

LATER: Mapping[str, bool] = MappingProxyType({"later": True})
"""Metadata of a field that the first release did not have; its default never changes."""


class Grown:
    """Base of a dataclass, declared with repr=False, that has such fields."""

    def __post_init__(self) -> None:
        """Where the checks of several bases meet: each calls the next.

        Raises:
            TypeError: a field that is declared a number is none.
        """
        hold_numbers(self)

    def __repr__(self) -> str:
        shown = [one.name for one in fields(self) if one.repr and _said(self, one)]  # type: ignore[arg-type]
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


def settings(record: Any) -> dict[str, Any]:
    """Fields by name, nested too, as `dataclasses.asdict` has them, but for later ones with their default."""
    return {one.name: _plain(getattr(record, one.name)) for one in fields(record) if _said(record, one)}


def _said(record: Any, one: Field[Any]) -> bool:
    default = one.default if one.default_factory is MISSING else one.default_factory()
    return "later" not in one.metadata or bool(getattr(record, one.name) != default)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return settings(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
