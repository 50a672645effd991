"""What every room needs: checks of arguments, names of what is in a module, the base of errors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from operator import index
from types import MappingProxyType, NoneType, UnionType
from typing import Any, ClassVar, get_args, get_origin


class SupermaskError(Exception):
    """What supermask raises by itself where something is wrong; the message says what, in one sentence, and what to do.

    Errors that have one of Python's own kinds are that as well: a TicketError is a ValueError.

    Attributes:
        status: a command that it ends exits with it: 2, what was given is at fault; 1, what was run broke down.
    """

    status: ClassVar[int] = 2


class SearchWarning(UserWarning):
    """Something that makes a search less than it seems; the message says what and what to do."""


def as_integer(name: str, value: object) -> int:
    """An integer of Python or NumPy as Python's.

    Raises:
        TypeError: it is none; True and False are none either.
    """
    if str(getattr(value, "dtype", type(value).__name__)).endswith("bool") or not hasattr(value, "__index__"):
        raise TypeError(f"{name} {value!r}: expected an integer")
    return index(value)


def as_number(name: str, value: object) -> int | float:
    """A real number of Python or NumPy as Python's.

    Raises:
        TypeError: it is none; True and False are none either.
    """
    kind = str(getattr(value, "dtype", type(value).__name__))
    try:
        if kind.endswith("bool") or "complex" in kind or not hasattr(value, "__float__"):
            raise TypeError
        return index(value) if "int" in kind else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} {value!r}: expected a number") from error


def hold_numbers(record: Any) -> None:
    """Make the numbers of a dataclass Python's own: what is declared int or float, tuples of them, or one of these or
    None.

    Raises:
        TypeError: a field has something else; the message names it.
    """
    for one in fields(record):
        value: Any = getattr(record, one.name)
        kinds = set(get_args(one.type)) if isinstance(one.type, UnionType) else {one.type}
        if value is None and NoneType in kinds:
            continue
        kind, *others = kinds - {NoneType}
        if not others and kind in _NUMBERS:
            object.__setattr__(record, one.name, _NUMBERS[kind](one.name, value))
        elif not others and get_origin(kind) is tuple and set(get_args(kind)) & _NUMBERS.keys():
            object.__setattr__(record, one.name, _held(one.name, value, get_args(kind)))


def _held(name: str, values: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    """A tuple of these kinds; a list, or whatever else gives several, is the same setting."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} {values!r}: expected several numbers")
    every = kinds[0] if kinds[-1] is Ellipsis else None
    return tuple(
        _NUMBERS[kind](f"{name}[{number}]", value)
        if (kind := every or dict(enumerate(kinds)).get(number)) in _NUMBERS
        else value
        for number, value in enumerate(values)
    )


_NUMBERS: Mapping[Any, Any] = MappingProxyType({int: as_integer, float: as_number})


def check_choice(name: str, value: str, choices: object) -> None:
    """Raise ValueError unless `value` is one of the strings of the Literal `choices`."""
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, get_args(choices)))}")


def misnamed(
    cls: type, called: Sequence[str], elsewhere: Mapping[str, str], near: Sequence[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Functions of a class that nothing calls and that are named almost as one that is called, or as it is elsewhere:
    the name each has, and the one that may be meant.

    Args:
        called: names of all that are called.
        elsewhere: some of these by other names.
        near: those of `called` that no other name may be close to; by default all.
    """
    near = called if near is None else near
    for name in vars(cls).keys() - {name for base in cls.__bases__ for name in dir(base)} - set(called):
        close = [elsewhere[name]] if name in elsewhere else get_close_matches(name, near, n=1, cutoff=0.85)
        if close and callable(vars(cls)[name]):
            yield name, close[0]


def join(name: str, part: str) -> str:
    """The dotted name of `part` of the module called `name`; that of the whole model is empty."""
    return f"{name}.{part}" if name else part


def cut(text: str, most: int) -> str:
    """A text in an error: what comes from elsewhere can be of any length."""
    return text if len(text) <= most else f"{text[:most]}..."
