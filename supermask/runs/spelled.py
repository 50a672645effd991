"""A configuration spelled out: config.json leaves later settings out where they have their default (later.py), and
whoever compares runs by such a setting needs its value."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from supermask.data.digits import Digits
from supermask.data.digits32 import Digits32
from supermask.data.image_folder import ImageFolder
from supermask.data.image_sets import CIFAR10, CIFAR100, MNIST, SVHN
from supermask.later import settings
from supermask.methods.cycles import Cycle
from supermask.networks.allocation import Allocator
from supermask.runs.validation import NEVER
from supermask.training.training import Training

# A configuration has supermask's own by their bare names.
_DATA = {kind.__name__: kind for kind in (Digits, Digits32, ImageFolder, CIFAR10, CIFAR100, MNIST, SVHN)}


def spelled_out(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the later settings of its training, validation, data and cycles."""
    found = {**config, "validation": {**settings(NEVER), **config.get("validation", {})}}
    if "training" in config:
        found["training"] = _completed(config["training"], Training)
    data = config.get("data")
    if isinstance(data, Mapping) and data.get("type") in _DATA:
        found["data"] = _completed(data, _DATA[data["type"]])
    found["stages"] = [
        {**stage, "cycle": _cycle(stage["cycle"])} if "cycle" in stage else stage for stage in config.get("stages", [])
    ]
    return found


def _cycle(said: Mapping[str, Any]) -> dict[str, Any]:
    found = _completed(said, Cycle)
    return {**found, "allocate": _completed(said.get("allocate", {}), Allocator)}


def _completed(said: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """A record of that kind, or of a kind made of it, with the defaults of the later fields that it does not say."""
    unsaid = {}
    for one in fields(kind):
        if "later" in one.metadata and one.name not in said:
            value = one.default if one.default_factory is MISSING else one.default_factory()
            unsaid[one.name] = list(value) if isinstance(value, tuple) else value
    return {**said, **unsaid}
