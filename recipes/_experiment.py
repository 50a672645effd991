"""What an experiment is made of: a search by a method and its ticket, or dense training."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from supermask import (
    METHODS,
    Architecture,
    Conversion,
    Data,
    Evaluate,
    Method,
    Recipe,
    RunOptions,
    Train,
    Training,
    Validation,
)

Network = Callable[[int], Architecture]


def searched(
    name: str,
    method: Method,
    data: Data,
    network: Network,
    training: Training,
    conversion: Conversion,
    run: RunOptions,
    validation: Validation,
) -> Recipe:
    """A search by `method`, evaluated after each cycle, and its ticket."""
    return Recipe(
        name=name,
        data=data,
        network=network,
        training=training,
        method=method,
        conversion=conversion,
        run=run,
        validation=validation,
    )


def trained(
    name: str, data: Data, network: Network, training: Training, run: RunOptions, validation: Validation
) -> Recipe:
    """Dense training of all weights, for the epochs of one cycle."""
    stages = Train(), Evaluate(recalibrate=False)
    return Recipe(
        name=name, data=data, network=network, training=training, stages=stages, run=run, validation=validation
    )


def methods(settings: Mapping[str, Any]) -> Mapping[str, Method]:
    """METHODS, each `suited` to a data set."""
    return {label: suited(method, settings) for label, method in METHODS.items()}


def suited(method: Method, settings: Mapping[str, Any]) -> Method:
    """`method` with those of the settings that it has; one of a single cycle keeps that."""
    values = {one.name: getattr(method, one.name) for one in fields(method)}
    alone = values.get("cycles") == 1
    taken = {name: value for name, value in settings.items() if name in values and not (name == "cycles" and alone)}
    return replace(method, **taken)
