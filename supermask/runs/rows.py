"""What a run measured as rows of a table: one a cycle, one an epoch, or one a layer and cycle."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from supermask.checks import check_choice
from supermask.runs.records import CycleResult, Epoch, EpochTime, LayerRecord, Record

if TYPE_CHECKING:
    from supermask.runs.read import RunRecord

Kind = Literal["cycles", "epochs", "layers"]
RUN: Mapping[str, type] = {"run": str, "path": str, "name": str, "seed": int, "finished": bool}
"""Columns that say which run a row is of, and whether it came to its end."""
OF_MASKS = ("dying", "dying_cumulative", "explored", "apparent", "apparent_of_all", "dead")
"""Measures that trained weights have none of."""


def columns(kind: Kind) -> dict[str, type]:
    """The columns of this kind of row and their types, without those of `RUN` and without a method's measures.

    Raises:
        ValueError: there is no such kind.
    """
    check_choice("kind", kind, Kind)
    if kind == "cycles":
        return _plain(CycleResult) | {"dead": int}
    if kind == "epochs":
        return _plain(Epoch) | {name: kind for name, kind in _plain(EpochTime).items() if name not in _plain(Epoch)}
    ratios = {"remaining": float, "dying": float, "dead": int, "score_low": float, "score_high": float}
    return {"cycle": int, "layer": str} | _plain(LayerRecord) | ratios


def rows(run: "RunRecord", kind: Kind) -> list[dict[str, Any]]:
    """One row a cycle, an epoch or a layer and cycle; None where the run has no such number.

    Raises:
        ValueError: there is no such kind.
    """
    check_choice("kind", kind, Kind)
    which = {"run": run.path.absolute().name, "path": str(run.path), "name": run.name, "seed": run.seed}
    which |= {"finished": run.finished}
    made = {"cycles": _cycles, "epochs": _epochs, "layers": _layers}[kind](run)
    return [which | row for row in made]


def _cycles(run: "RunRecord") -> list[dict[str, Any]]:
    return [_of(run, _held(cycle) | {"dead": cycle.dead}) | _measures(cycle) for cycle in run.cycles]


def _epochs(run: "RunRecord") -> list[dict[str, Any]]:
    times = {time.epoch: _held(time) for time in run.times}
    return [times.get(epoch.epoch, {}) | _of(run, _held(epoch)) for epoch in run.epochs]


def _of(run: "RunRecord", row: dict[str, Any]) -> dict[str, Any]:
    """The row, without measures of masks where there are none."""
    return {name: None if run.dense and name in OF_MASKS else value for name, value in row.items()}


def _layers(run: "RunRecord") -> list[dict[str, Any]]:
    return [
        {"cycle": cycle.cycle, "layer": name}
        | _held(layer)
        | {
            "remaining": layer.kept / layer.edges,
            "dying": 1 - layer.ever / layer.edges,
            "dead": cycle.dead_units.get(name),
            "score_low": layer.scores.low if layer.scores else None,
            "score_high": layer.scores.high if layer.scores else None,
        }
        for cycle in run.cycles
        for name, layer in cycle.layers.items()
    ]


def _measures(cycle: CycleResult) -> dict[str, float]:
    """What else the method measures; after "measures." where a column has its name."""
    known = {*RUN, *columns("cycles")}
    ends = {"": cycle.measures, "_recalibrated": cycle.measures_recalibrated}
    found = {f"{name}{end}": value for end, values in ends.items() for name, value in values.items()}
    return {f"measures.{name}" if name in known else name: value for name, value in found.items()}


def _plain(kind: type[Record]) -> dict[str, type]:
    """Fields of a record that hold one number or text, with its type; a number that may be missing is a float."""
    found = {}
    for part in fields(kind):
        held = set(get_args(part.type) or (part.type,))
        optional = type(None) in held
        held -= {type(None)}
        if held <= {int, float, bool, str} and len(held) == 1:
            (one,) = held
            found[part.name] = float if optional and one is int else one
    return found


def _held(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _plain(type(record))}
