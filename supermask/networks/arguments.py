"""Arguments of JSON's types, held to the annotations of the builder that takes them."""

import difflib
import inspect
import types
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from supermask.checks import SupermaskError, cut

_LISTS = (list, Sequence, MutableSequence, Collection, Iterable)
_MAPPINGS = (dict, Mapping, MutableMapping)
_SCALARS = (bool, int, float, str, type(None))
_QUOTED = 100  # characters of a value


class _Misfit(SupermaskError):
    """A value that an annotation does not take."""


def signature_of(builder: Callable[..., Any]) -> inspect.Signature:
    """What `builder` takes, by name.

    Raises:
        TypeError: it does not say, or has an argument without a default that goes by position alone.
    """
    try:
        signature = inspect.signature(builder)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{builder!r} does not say what arguments it takes: wrap it in a function that does") from error
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise TypeError(f"{builder!r} takes {parameter.name} by position alone: arguments are given by name")
    return signature


def bound_to(builder: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`arguments` as `builder` takes them: a list as a tuple where its annotation says that.

    bool, int, float (an integer will do), str, None, Literal, lists, tuples, mappings and unions of these are looked
    at; what has another annotation, or none, is passed as it is.

    Raises:
        TypeError: an argument that it does not take, that is missing, or of another type than its annotation says.
    """
    parameters = signature_of(builder).parameters
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    by_name = {
        name: one for name, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    if not anything and (unknown := [name for name in arguments if name not in by_name]):
        close = difflib.get_close_matches(unknown[0], by_name, 1)
        hint = f"did you mean {close[0]}" if close else f"it takes {', '.join(by_name) or 'none'}"
        raise TypeError(f"no argument is called {unknown[0]!r}: {hint}")
    if missing := [name for name, one in by_name.items() if one.default is one.empty and name not in arguments]:
        raise TypeError(f"{missing[0]} is missing")
    found = {}
    for name, value in arguments.items():
        annotation = _read(by_name[name].annotation, builder) if name in by_name else Any
        try:
            found[name] = _fitted(value, annotation)
        except _Misfit as error:
            said = cut(repr(value), _QUOTED)
            raise TypeError(f"{name}={said}: expected {_in_words(annotation)}") from error
    return found


def _read(annotation: Any, builder: Any) -> Any:
    """An annotation that is a string, as `from __future__ import annotations` makes them, evaluated where it was
    written; Any where it names what is not there, as imports for a type checker alone."""
    if not isinstance(annotation, str):
        return annotation
    while isinstance(builder, partial):
        builder = builder.func
    if isinstance(builder, type):
        named = next(vars(base)["__init__"] for base in builder.__mro__ if "__init__" in vars(base))
    else:
        named = inspect.unwrap(builder if inspect.isroutine(builder) else type(builder).__call__)
    try:
        return eval(annotation, dict(getattr(named, "__globals__", {})))
    except Exception:
        return Any


def _fitted(value: Any, annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _fitted(value, get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _of_union(value, get_args(annotation))
    if origin is Literal:
        return _of_literal(value, get_args(annotation))
    kind = annotation if origin is None else origin
    inner = get_args(annotation)
    if kind is tuple:
        return _as_tuple(value, inner)
    if kind in _LISTS or kind in _MAPPINGS:
        return _held(value, inner[-1] if inner else Any, list if kind in _LISTS else dict)
    return _scalar(value, type(None) if kind is None else kind)


def _of_union(value: Any, members: Sequence[Any]) -> Any:
    for member in sorted(members, key=_looked_at, reverse=True):
        try:
            return _fitted(value, member)
        except _Misfit:
            continue
    raise _Misfit


def _of_literal(value: Any, known: Sequence[Any]) -> Any:
    if not any(type(value) is type(one) and value == one for one in known):
        raise _Misfit
    return value


def _held(value: Any, inner: Any, kind: type) -> Any:
    if kind is list:
        return [_fitted(one, inner) for one in _a(list, value)]
    return {name: _fitted(one, inner) for name, one in _a(dict, value).items()}


def _looked_at(annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation
    return kind is None or kind in (*_SCALARS, *_LISTS, *_MAPPINGS, tuple, Annotated, Literal, Union, types.UnionType)


def _as_tuple(value: Any, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    values = _a(list, value)
    if not inner:
        return tuple(values)
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(_fitted(one, inner[0]) for one in values)
    if len(inner) != len(values):
        raise _Misfit
    return tuple(_fitted(one, kind) for one, kind in zip(values, inner, strict=True))


def _scalar(value: Any, kind: Any) -> Any:
    if kind in _SCALARS and not (type(value) is kind or (kind is float and type(value) is int)):
        raise _Misfit
    return value


def _a(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise _Misfit
    return value


def _in_words(annotation: Any) -> str:
    said = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    return said.replace("typing.", "").replace("collections.abc.", "")
