"""What every room needs: checks of arguments, names of what is in a module."""

from typing import get_args


def check_choice(name: str, value: str, choices: object) -> None:
    """Raise ValueError unless `value` is one of the strings of the Literal `choices`."""
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, get_args(choices)))}")


def join(name: str, part: str) -> str:
    """The dotted name of `part` of the module called `name`; that of the whole model is empty."""
    return f"{name}.{part}" if name else part
