"""Checks of arguments that every room makes."""

from typing import get_args


def check_choice(name: str, value: str, choices: object) -> None:
    """Raise ValueError unless `value` is one of the strings of the Literal `choices`."""
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, get_args(choices)))}")
