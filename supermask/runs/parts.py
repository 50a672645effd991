"""What a configuration's settings do not say of its parts: types, and the user's code."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from supermask.networks.network import configuration
from supermask.networks.registry import registered
from supermask.runs.plain import attributes, bound, held_by, is_record, plain
from supermask.runs.sources import is_own, is_users, qualified, sources

_PLAIN = (dict, list, tuple, set, frozenset, str, int, float, bool, bytes, type(None))


def code_of(part: Any, name: str, usual: type | None = None, *, unsaid: bool = False) -> dict[str, dict[str, Any]]:
    """By dotted name, of the part `name` and all that it holds: `type`, and where that is the user's, `source` (SHA-256
    of each file that defines it) and `bound` (what the files do not say).

    Nothing of what supermask's own classes are told by in the settings.

    Args:
        usual: the class that the part has unless told otherwise; None where the settings name supermask's own.
        unsaid: the settings do not have its fields.
    """
    found = dict(_walk(part, name, own=usual is None or type(part) is usual, within=()))
    if unsaid and name in found and not callable_code(part) and (held := plain(held_by(part))):
        found[name]["bound"] = found[name].get("bound", {}) | {"fields": held}
    return found


def code_of_builder(name: object) -> dict[str, dict[str, Any]]:
    """Of the network that the user registered under that name: `builder`. Nothing of supermask's own."""
    entry = registered(name) if isinstance(name, str) else None
    return {} if entry is None else code_of(entry.builder, "builder")


def code_of_network(network: Any) -> dict[str, dict[str, Any]]:
    """What stands behind the name that a recipe's network has, if it has one, and in the file of its configuration."""
    found = code_of_builder(getattr(network, "name", None))
    if isinstance(file := getattr(network, "config", None), Path):
        text = json.dumps(configuration(file), sort_keys=True)
        found["network.config"] = {"sha256": sha256(text.encode()).hexdigest()}
    return found


def callable_code(part: Any) -> bool:
    """Whether it is code itself, and no object of a class."""
    return isinstance(part, type | FunctionType | BuiltinFunctionType | MethodType | partial)


def _walk(part: Any, name: str, *, own: bool, within: tuple[int, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`own`: of supermask's classes nothing need be said."""
    if id(part) in within:
        return
    inner = (*within, id(part))
    if callable_code(part):
        yield from _of_callable(part, name, inner)
        return
    kind = type(part)
    if kind not in _PLAIN:
        own = own and not is_users(kind)
        if is_users(kind) or (is_own(kind) and not own):
            yield name, _said(part, kind)
    for key, held in _held(part):
        yield from _walk(held, f"{name}.{key}", own=own, within=inner)


def _said(part: Any, kind: type) -> dict[str, Any]:
    said: dict[str, Any] = {"type": qualified(kind)}
    if is_users(kind):
        around = bound(kind) | ({"attributes": more} if is_record(part) and (more := plain(attributes(part))) else {})
        said |= {"source": sources(kind)} | ({"bound": around} if around else {})
    return said


def _of_callable(part: Any, name: str, within: tuple[int, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A class, a function, or either with some of its arguments."""
    named, holders = part, []
    while isinstance(named, partial | MethodType):
        holders.append(named)
        named = named.func if isinstance(named, partial) else named.__func__
    if not isinstance(named, type | FunctionType | BuiltinFunctionType):  # an object that is called
        yield from _walk(named, name, own=False, within=within)
    elif is_users(named):
        around = bound(part)
        yield name, {"type": qualified(named), "source": sources(named)} | ({"bound": around} if around else {})
    for holder in holders:
        held = (*holder.args, *holder.keywords.values()) if isinstance(holder, partial) else (holder.__self__,)
        for number, one in enumerate(held):
            yield from _walk(one, f"{name}.{number}", own=False, within=within)


def _held(part: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(part, Mapping):
        yield from ((str(key), held) for key, held in part.items())
    elif is_record(part):
        yield from ((one.name, getattr(part, one.name)) for one in fields(part))
    elif isinstance(part, list | tuple):
        yield from ((str(number), held) for number, held in enumerate(part))
    elif is_users(type(part)):
        yield from attributes(part).items()
