"""A network in a recipe: a name, for as many classes as the data has."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supermask.later import LATER, Grown
from supermask.networks.architecture import Architecture

if TYPE_CHECKING:
    Arguments = Mapping[str, Any]
else:
    Arguments = Mapping[str, bool | int | float | str]  # what a command line is read by


@dataclass(frozen=True, kw_only=True, repr=False)
class Network(Grown):
    """An architecture of the registry, for the number of classes that the data set has.

    Attributes:
        name: in the registry: resnet18, conv8, vgg16_bn, resnext29_32x4d, convmixer, torchvision/resnet50,
            timm/resnet10t, transformers/AutoModelForImageClassification, or one that the user registered.
        arguments: of its builder, besides the number of classes: width 2.0 doubles the channels of resnet18. A text
            that is a list or an object of JSON stands for that: widths "[8, 16]".
        config: file with the configuration of one of transformers' networks (config.json).
    """

    name: str
    arguments: Arguments = field(default_factory=dict)
    config: Path | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        for name in ("num_classes", *(["config"] if self.config else [])):
            if name in self.arguments:
                of = "the data set's" if name == "num_classes" else "the file's"
                raise ValueError(f"arguments {name}={self.arguments[name]!r}: it is {of}: leave it out")
        if self.config is not None:
            object.__setattr__(self, "config", Path(self.config))  # a string will do

    def __call__(self, classes: int) -> Architecture:
        """Raises ValueError where the file of the configuration cannot be read."""
        read = {} if self.config is None else {"config": configuration(self.config)}
        given = {name: _meant(value) for name, value in self.arguments.items()}
        return Architecture(name=self.name, arguments={**given, **read, "num_classes": classes})


def _meant(value: Any) -> Any:
    """A command line has no other way to give a list."""
    if not isinstance(value, str) or not value.startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def configuration(file: Path) -> dict[str, Any]:
    """The settings in a config.json of transformers.

    Raises:
        ValueError: a file that cannot be read, or holds something else.
    """
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"config={file}: {why}: expected a config.json of transformers") from error
    if not isinstance(found, dict):
        raise ValueError(f"config={file}: expected a config.json of transformers, an object of JSON")
    return found
