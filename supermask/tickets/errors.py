"""What is wrong with a ticket, said in one line of bounded length."""

from typing import Any

from supermask.checks import SupermaskError, cut

__all__ = ["TicketError", "named", "short"]

_SHOWN = 200  # characters of a bad value in an error
_MOST_MESSAGE = 4000


class TicketError(SupermaskError, ValueError):
    """A ticket that cannot be written or is not what it says; the message names the file, the layer and both values.

    A file can call things as it likes, so the message is cut at 4,000 characters, and what a terminal would obey is
    escaped.
    """

    def __init__(self, message: str) -> None:
        shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in message[: _MOST_MESSAGE + 1])
        super().__init__(shown if len(shown) <= _MOST_MESSAGE else f"{shown[: _MOST_MESSAGE - 3]}...")


def named(file: Any) -> str:
    """An open file's name in errors."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else f"<{type(file).__name__}>"


def short(value: Any) -> str:
    """A bad value in an error: a file can make it as long as it likes."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = f"a number of {value.bit_length():,} bits" if isinstance(value, int) else "numbers of many digits"
    return cut(text, _SHOWN)
