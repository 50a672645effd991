"""Settings in JSON's own types: one value in every process, two for two settings, and never an address in memory."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cached_property, partial
from hashlib import sha256
from numbers import Integral, Real
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from supermask.later import settings
from supermask.runs.options import RunOptions
from supermask.runs.sources import functions, is_users, made_by_code, qualified

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_DEEPEST = 12  # what lies deeper in objects without a text of their own is told by its type
_CONSTANT = str, int, float, bytes, tuple, type
_SIMPLE = str, int, float  # and bool


def plain(value: Any, within: tuple[int, ...] = ()) -> Any:
    """`value`, as JSON holds it.

    Args:
        within: of what it is a part, so that a thing which holds itself ends.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return _scalar(value)
    inner = (*within, id(value))
    if id(value) in within:
        said: Any = "..."
    elif isinstance(value, RunOptions):
        said = "how it is run"  # seed and all, the settings have it
    elif is_record(value):
        said = plain(settings(value), inner)
    elif isinstance(value, Mapping):
        said = {_key(name, inner): plain(held, inner) for name, held in value.items()}
    elif isinstance(value, list | tuple):
        said = [plain(held, inner) for held in value]
    elif isinstance(value, set | frozenset):
        said = sorted((plain(held, inner) for held in value), key=json.dumps)
    else:
        said = _described(value, inner)
    return said


def _scalar(value: Any) -> Any:
    value = value.value if isinstance(value, Enum) else value
    return "nan" if isinstance(value, float) and math.isnan(value) else value  # a NaN differs from itself


def holds_address(text: str) -> bool:
    """Whether a repr tells a thing by where it lies in memory."""
    return _ADDRESS.search(text) is not None


def is_record(value: Any) -> bool:
    """Whether it is an instance of a dataclass."""
    return is_dataclass(value) and not isinstance(value, type)


def held_by(value: Any) -> dict[str, Any]:
    """Settings of a part: the fields of a dataclass, the attributes of anything else."""
    return settings(value) if is_record(value) else attributes(value)


def attributes(value: Any) -> dict[str, Any]:
    """What an object has besides the fields of a dataclass and what it only remembers (`cached_property`)."""
    known = {one.name for one in fields(value)} if is_record(value) else set()
    names = set(getattr(value, "__dict__", ()))
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        names |= {slots} if isinstance(slots, str) else set(slots)
        known |= {name for name, one in vars(base).items() if isinstance(one, cached_property)}
    left = sorted(name for name in names - known if not name.startswith("__") and hasattr(value, name))
    return {name: getattr(value, name) for name in left}


def bound(value: Any, within: tuple[int, ...] = ()) -> Any:
    """What a function or a class was made with that its source does not say: variables around it, defaults, and of a
    class that another function makes also its constants; of the user's, numbers and texts of the class and of its
    module, as they are when the run begins. Nothing where there is none."""
    if isinstance(value, partial):
        made = {"arguments": list(value.args), "keywords": value.keywords, "of": bound(value.func, within)}
        return plain({name: one for name, one in made.items() if one}, within)
    if isinstance(value, MethodType):
        return plain({"self": value.__self__, "of": bound(value.__func__, within)}, within)
    if isinstance(value, type):
        return plain(_set_in_class(value) | (_around_class(value) if made_by_code(value) else {}), within)
    if not isinstance(value, FunctionType):
        return {}
    return plain((_set_in_module(value) if is_users(value) else {}) | _around(value), within)


def _around(function: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not yet filled
            continue
    found.pop("__class__", None)
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    found |= dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
    return found | (function.__kwdefaults__ or {})


def _set_in_class(kind: type) -> dict[str, Any]:
    """Numbers and texts that the user's classes under `kind` have, and that their functions read of their modules."""
    found: dict[str, Any] = {}
    for base in filter(is_users, kind.__mro__):
        known = {one.name for one in fields(base)} if is_dataclass(base) else set()
        for name, one in vars(base).items():
            if not name.startswith("__") and name not in known and isinstance(one, _SIMPLE):
                found.setdefault(name, one)
        for function in functions(base):
            for name, one in _set_in_module(function).items():
                found.setdefault(name, one)
    return found


def _set_in_module(function: FunctionType) -> dict[str, Any]:
    """Numbers and texts of its module that a function reads: a script may have set them by its arguments."""
    held = function.__globals__
    names = sorted(name for name in set(function.__code__.co_names) & held.keys() if not name.startswith("__"))
    return {name: held[name] for name in names if isinstance(held[name], _SIMPLE)}


def _around_class(kind: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in filter(is_users, kind.__mro__):
        known = {one.name for one in fields(base)} if is_dataclass(base) else set()
        for name, one in vars(base).items():
            if not (name.startswith("__") or name in known) and isinstance(one, _CONSTANT):
                found.setdefault(name, one)
        for function in functions(base):
            if around := {name: one for name, one in _around(function).items() if one is not kind}:
                found.setdefault(function.__name__, around)
    return found


def _key(name: Any, within: tuple[int, ...]) -> str:
    if name is None or isinstance(name, bool | int | float):
        return json.dumps(name)  # as JSON's own keys
    return name if isinstance(name, str) else json.dumps(plain(name, within))


def _described(value: Any, within: tuple[int, ...]) -> Any:
    said: Any
    if isinstance(value, Integral | Real):  # numpy's
        said = int(value) if isinstance(value, Integral) else _scalar(float(value))
    elif isinstance(value, PurePath | torch.dtype | torch.device):
        said = str(value)
    elif isinstance(value, Enum):
        said = f"{qualified(type(value))}.{value.name}"
    elif isinstance(value, partial | MethodType):
        inner = value.func if isinstance(value, partial) else value.__func__
        said = {"function": plain(inner, within), "bound": bound(value, within)}
    elif isinstance(value, type | FunctionType | BuiltinFunctionType):
        around = bound(value, within)
        said = {"function": qualified(value), "bound": around} if around else qualified(value)
    elif isinstance(value, bytes | bytearray | Tensor | np.ndarray | nn.Module | torch.Generator):
        said = {"type": qualified(type(value)), "sha256": _digest(value)}
    else:
        said = _object(value, within)
    return said


def _object(value: Any, within: tuple[int, ...]) -> Any:
    kind = type(value)
    own = any(name in vars(base) for base in kind.__mro__[:-1] for name in ("__repr__", "__str__"))
    text = str(value) if own else ""
    if text and not holds_address(text):
        return text
    if len(within) > _DEEPEST:
        return qualified(kind)
    said = {"type": qualified(kind), "attributes": plain(attributes(value), within)}
    return said | ({"text": _ADDRESS.sub("", text)} if text else {})


def _digest(value: Any) -> str:
    if isinstance(value, torch.Generator):
        value = value.get_state()
    if isinstance(value, nn.Module):
        state = {name: _digest(one) for name, one in value.state_dict().items() if isinstance(one, Tensor)}
        return sha256(json.dumps([_ADDRESS.sub("", repr(value)), state]).encode()).hexdigest()
    if isinstance(value, Tensor):
        head = f"{value.dtype} {tuple(value.shape)} "
        data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        head, data = f"{value.dtype} {value.shape} ", repr(plain(value.tolist())).encode()
    else:
        head, data = "", bytes(value)
    return sha256(head.encode() + data).hexdigest()
