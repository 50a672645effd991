"""Networks by name: supermask's own, and whatever the user registers. A ticket has the name and never the code."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from torch import nn

from supermask.networks.arguments import bound_to, signature_of
from supermask.networks.small import MLP, convmixer, convnet, resnet18, resnext29, vgg16_bn

Builder = Callable[..., nn.Module]
Shape = tuple[int, ...] | Callable[[Mapping[str, Any]], tuple[int, ...] | None]
"""Of one input, without the batch; or what gives it for the arguments of the network."""

PACKAGES = ("torchvision", "timm", "transformers")
"""Whose networks have names of their own: PACKAGE/NAME."""
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*", re.ASCII)
_LONGEST = 100
_Made = TypeVar("_Made", bound=Builder)


@dataclass(frozen=True, kw_only=True)
class Registered:
    """An entry of the registry.

    Attributes:
        builder: makes the network from keyword arguments.
        shape: of one input; None where it is not known.
        held: arguments are held to the builder's annotations; supermask's own say themselves what they take.
    """

    builder: Builder
    shape: Shape | None = None
    held: bool = True

    def make(self, arguments: Mapping[str, Any]) -> Any:
        """What the builder gives.

        Raises:
            Exception: whatever a wrong argument runs into.
        """
        return self.builder(**(bound_to(self.builder, arguments) if self.held else arguments))

    def input_shape(self, arguments: Mapping[str, Any]) -> tuple[int, ...] | None:
        """The shape of one input of the network with these arguments, without the batch; None where it is not known."""
        shape = self.shape(arguments) if callable(self.shape) else self.shape
        return None if shape is None else tuple(shape)


@overload
def register(name: str, builder: _Made, input_shape: Shape | None = None) -> _Made: ...
@overload
def register(name: str, builder: None = None, input_shape: Shape | None = None) -> Callable[[_Made], _Made]: ...
def register(name: str, builder: Any = None, input_shape: Shape | None = None) -> Any:
    """Give a network a name, by which recipes, grids, tickets and commands find it: `@register("mine/cnn")` above a
    class or a function, or `register("mine/cnn", builder)`.

    The name is in the registry of this process. Another one, which loads a ticket say, registers it too, or is told
    the module that does: `--import MODULE`.

    Args:
        name: letters, digits and `. _ + -`, in parts between slashes; `mine/cnn`, say.
        builder: a class or a function that gives a module, from keyword arguments that JSON holds. They are held to
            its annotations (bool, int, float, str, None, unions of these, Literal, lists, tuples, mappings); recipes
            give it `num_classes`.
        input_shape: of one input, without the batch: `(3, 32, 32)`, or a function of the arguments that gives it.
            Exports and `eval` go by it.

    Returns:
        The builder.

    Raises:
        ValueError: a name that is no name, that another builder has, or that begins as those of a package.
        TypeError: a builder that is not called, or an input shape that is none.
    """
    _check_name(name)
    if builder is None:
        return partial(_registered_by, name, input_shape)
    if not callable(builder) or isinstance(builder, nn.Module):
        raise TypeError(f"{name}: the builder is {builder!r}: expected a class or a function that gives a module")
    signature_of(builder)
    if not callable(input_shape):
        _check_shape(name, input_shape)
    known = BUILDERS.get(name)
    if known is not None and _place(known.builder) != _place(builder):
        raise ValueError(
            f"the name {name!r} is taken by {_called(known.builder)}, so {_called(builder)} cannot have it: choose "
            "another one, such as mine/NAME"
        )
    BUILDERS[name] = Registered(builder=builder, shape=input_shape)
    return builder


def registered(name: str) -> Registered | None:
    """The entry of that name, if there is one."""
    return BUILDERS.get(name)


def _registered_by(name: str, input_shape: Shape | None, builder: Any) -> Any:
    if builder is None:
        raise TypeError(f"{name}: the builder is None: expected a class or a function that gives a module")
    return register(name, builder, input_shape)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a network is {name!r}: expected a string")
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        raise ValueError(
            f"the name of a network is {name[: 2 * _LONGEST]!r}: expected letters, digits and . _ + - in parts between "
            f"slashes, at most {_LONGEST} characters: mine/cnn, say"
        )
    package, slash, _ = name.partition("/")
    if slash and package in PACKAGES:
        raise ValueError(f"the name {name!r} is for networks of {package}: choose another one, such as mine/NAME")


def _check_shape(name: str, shape: object) -> None:
    if shape is None:
        return
    if not isinstance(shape, tuple | list) or any(type(size) is not int or size < 1 for size in shape):
        raise TypeError(
            f"{name}: input_shape={shape!r}: expected positive integers, of one input without the batch: (3, 32, 32)"
        )


def _place(builder: Any) -> tuple[object, ...]:
    """What tells builders apart: the file and the name in it, whichever way it was imported, and with what it was made.
    A module that is imported again, or as __main__, has the same ones."""
    if isinstance(builder, partial):
        keywords = ((name, _Held(builder.keywords[name])) for name in sorted(builder.keywords))
        return _place(builder.func), *map(_Held, builder.args), *keywords
    named = builder if hasattr(builder, "__qualname__") else type(builder)
    file = getattr(sys.modules.get(named.__module__), "__file__", None)
    made = ()
    if "<" in named.__qualname__:  # of a lambda, or inside a function
        made = (getattr(builder, "__code__", builder), *_around(builder))
    return str(Path(file).resolve()) if file else named.__module__, named.__qualname__, made


def _around(builder: Any) -> Iterator["_Held"]:
    """What a function has of the one that it was made in, but for itself."""
    for cell in getattr(builder, "__closure__", None) or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not made yet, as the function itself is not while it is decorated
            continue
        if value is not builder:
            yield _Held(value)


class _Held:
    """Something that a builder was made with: the same object, or one that says in one word that it is equal, which
    arrays do not."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Held):
            return NotImplemented
        if self._value is other._value:
            return True
        try:
            said = self._value == other._value
        except Exception:  # whatever a comparison of the user's runs into
            return False
        return isinstance(said, bool | np.bool_) and bool(said)


def _called(builder: Any) -> str:
    if isinstance(builder, partial):
        return _called(builder.func)
    named = builder if hasattr(builder, "__qualname__") else type(builder)
    return f"{named.__module__}.{named.__qualname__}"


def _mlp_shape(arguments: Mapping[str, Any]) -> tuple[int, ...] | None:
    sizes = arguments.get("sizes")
    return (sizes[0],) if sizes else None


def _image_shape(arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """Of small images, of a size that only Conv2 to Conv8 can be told."""
    size = arguments.get("size", 32)
    return arguments.get("channels", 3), size, size


_FOR_IMAGES: Mapping[str, Builder] = {
    **{f"conv{depth}": partial(convnet, depth) for depth in (2, 4, 6, 8)},
    "vgg16_bn": vgg16_bn,
    "resnet18": resnet18,
    "resnext29_32x4d": resnext29,
    "convmixer": convmixer,
}
BUILDERS: dict[str, Registered] = {
    "mlp": Registered(builder=MLP, shape=_mlp_shape, held=False),
    **{name: Registered(builder=builder, shape=_image_shape, held=False) for name, builder in _FOR_IMAGES.items()},
}
"""The registry of this process: supermask's own, then the user's in the order of registration."""
