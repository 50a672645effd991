"""Run folders as typed objects: what a run was told to do and what it measured, read from the files it wrote.

A run that is still going on, or was killed, is read as far as it came: a damaged last line is the line that was being
written. Files that a run did not write (ranks, times, masks) are simply absent.
"""

import json
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from supermask.edges.overlap import Masks
from supermask.methods.cycles import cycle_fields
from supermask.runs.records import CycleRecord, Epoch, EpochTime, Evaluation, Histogram, LayerRecord, Ranks

_MASK_FILE = re.compile(r"cycle-([1-9][0-9]*)\.safetensors")
Record = TypeVar("Record")


class RunReadError(ValueError):
    """A path that is no run folder, or a damaged file in one; the message names the file and, where it has one, the
    line."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run folder.

    Attributes:
        path: of the folder.
        name: of the recipe.
        config: the recipe as the run was begun with it.
        seed: of the run.
        epochs, cycles: so far.
        ranks: None where none were recorded.
        times: of the epochs; may be empty.
        masks: file of each cycle's mask; may be empty.
        finished: the run came to its end.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    seed: int
    epochs: tuple[Epoch, ...]
    cycles: tuple[CycleRecord, ...]
    ranks: Ranks | None
    times: tuple[EpochTime, ...]
    masks: Mapping[int, Path]
    finished: bool

    @cached_property
    def searches(self) -> tuple[Mapping[str, Any], ...]:
        """The planned cycles."""
        stages = self.config["stages"]
        return tuple(stage["cycle"] for stage in stages if stage.get("stage") == "Search")

    @property
    def dense(self) -> bool:
        """The weights were trained: no stage searches."""
        return not self.searches

    @property
    def seconds(self) -> float:
        """Duration of the timed epochs."""
        return sum(time.seconds for time in self.times)

    @property
    def data_wait(self) -> float:
        """Share of `seconds` spent waiting for data; NaN where no time was recorded."""
        return sum(time.seconds * time.data_wait for time in self.times) / self.seconds if self.seconds else math.nan


def read_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        RunReadError: `path` is not a run folder, or one of its files is damaged before its last line.
    """
    config = _config(path)
    epochs: list[Epoch] = []
    cycles: dict[int, CycleRecord] = {}
    finished = False
    for where, event in _lines(path / "metrics.jsonl"):
        kind = event.get("event")
        if kind == "epoch":
            epochs.append(_record(Epoch, event, where))
        elif kind == "cycle":
            record = _record(CycleRecord, event | {"layers": _layers(event, where)}, where)
            cycles[record.cycle] = record
        elif kind == "evaluate":
            found = _record(Evaluation, event, where)
            if found.cycle in cycles:  # an evaluation before any cycle is of no cycle
                cycles[found.cycle] = replace(
                    cycles[found.cycle], accuracy=found.accuracy, recalibrated=found.recalibrated
                )
        elif kind == "end":
            finished = True
    # Times are appended to after a stop as well: a torn line may be anywhere, and an epoch in twice.
    times = {str(event.get("epoch")): (where, event) for where, event in _lines(path / "times.jsonl", torn=True)}
    masks = {int(match[1]): file for file in (path / "masks").glob("*") if (match := _MASK_FILE.fullmatch(file.name))}
    return Run(
        path=path,
        name=config["name"],
        config=config,
        seed=config["run"]["seed"],
        epochs=tuple(epochs),
        cycles=tuple(cycles[number] for number in sorted(cycles)),
        ranks=_ranks(path / "ranks.jsonl"),
        times=tuple(_record(EpochTime, event, where) for where, event in times.values()),
        masks=dict(sorted(masks.items())),
        finished=finished,
    )


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error; the error of one value is NaN."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def _config(path: Path) -> dict[str, Any]:
    """The recipe of a run folder."""
    file = path / "config.json"
    if not file.is_file():
        if not path.is_dir():
            raise RunReadError(f"{path} is not a run folder: there is no such folder")
        inside = len(list(path.glob("*/config.json")))
        hint = f", but {inside} folders in it have one: name those, {path}/*" if inside else ""
        raise RunReadError(f"{path} is not a run folder: it has no config.json{hint}")
    try:
        recipe = json.loads(file.read_bytes())["recipe"]
        known = isinstance(recipe["name"], str) and isinstance(recipe["run"]["seed"], int)
        known = known and all(isinstance(stage, dict) for stage in recipe["stages"])
        known = known and all(isinstance(stage["cycle"], dict) for stage in recipe["stages"] if _searches(stage))
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise RunReadError(f"{file} is not a run's configuration: {type(error).__name__} {error}") from error
    if not known:
        raise RunReadError(f"{file} is not a run's configuration: name, seed or stages are of another type")
    for stage in filter(_searches, recipe["stages"]):
        stage["cycle"] = cycle_fields(stage["cycle"])
    return dict(recipe)


def _searches(stage: Mapping[str, Any]) -> bool:
    return stage.get("stage") == "Search"


def _lines(file: Path, *, torn: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and line, object) of a file of JSON lines; nothing of a file that is not there.

    Args:
        torn: damaged lines are passed over, not only the last one.
    """
    try:
        lines = file.read_bytes().removesuffix(b"\n").split(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunReadError(f"{file} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        where = f"{file} line {number}"
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict):
            yield where, event
        elif number < len(lines) and not torn:
            raise RunReadError(f"{where} is damaged: not a JSON object")


def _ranks(file: Path) -> Ranks | None:
    lines = list(_lines(file))
    if not lines:
        return None
    where, head = lines[0]
    rows = lines[1:]
    try:
        layers, edges = tuple(head["layers"]), tuple((int(layer), int(flat)) for layer, flat in head["edges"])
        if not all(0 <= layer < len(layers) for layer, _ in edges):
            raise ValueError("an edge of a layer that is not listed")
        ranks = np.empty((len(rows), len(edges)))
        selected = np.empty((len(rows), len(edges)), dtype=np.bool_)
        for index, (at, row) in enumerate(rows):
            where = at
            if len(row["ranks"]) != len(edges) or len(row["selected"]) != len(edges):
                raise ValueError(f"{len(row['ranks'])} ranks of {len(edges)} edges")
            ranks[index], selected[index] = row["ranks"], row["selected"]
            int(row["cycle"]), int(row["epoch"])
    except (LookupError, TypeError, ValueError) as error:
        raise RunReadError(f"{where} is damaged: {type(error).__name__} {error}") from error
    if not rows or not edges:
        return None
    return Ranks(
        layers=layers,
        edges=edges,
        cycles=tuple(row["cycle"] for _, row in rows),
        epochs=tuple(row["epoch"] for _, row in rows),
        ranks=ranks,
        selected=selected,
    )


def _layers(event: Mapping[str, Any], where: str) -> dict[str, LayerRecord]:
    values = event.get("layers", {})
    if not isinstance(values, dict) or not all(isinstance(value, dict) for value in values.values()):
        raise RunReadError(f"{where} is damaged: layers is {values!r:.60}")
    layers = {}
    for name, value in values.items():
        at = f"{where} layer {name!r}"
        scores = value.get("scores")
        histogram = {"scores": _record(Histogram, scores, at)} if isinstance(scores, dict) else {}
        layers[name] = _record(LayerRecord, value | histogram, at)
    return layers


_KINDS: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    float | None: (int, float),
    Mapping[str, int]: (dict,),
    Mapping[str, LayerRecord]: (dict,),
    Histogram | None: (Histogram,),
    Sequence[int]: (list,),
}


def _record(kind: type[Record], event: Mapping[str, Any], where: str) -> Record:
    """The fields of dataclass `kind` from an event, each of its type; fields it does not have are passed over."""
    values = {}
    for part in fields(kind):  # type: ignore[arg-type]  # a dataclass type, which a TypeVar cannot say
        if part.name in event:
            value = event[part.name]
            if not isinstance(value, _KINDS[part.type]) or isinstance(value, bool):
                raise RunReadError(f"{where} is damaged: {part.name} is {value!r:.60}")
            values[part.name] = value
        elif part.default is MISSING and part.default_factory is MISSING:
            raise RunReadError(f"{where} has no {part.name}: damaged, or written by another release")
    return kind(**values)


class MaskFileError(ValueError):
    """A mask file that cannot be read; the message names it."""


def read_masks(path: Path) -> Masks:
    """Masks from a file masks/cycle-N.safetensors of a run folder.

    Raises:
        MaskFileError: there is no such file, or it does not hold masks.
    """
    if not path.is_file():
        raise MaskFileError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            cols = json.loads((file.metadata() or {})["cols"])
            bits = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise MaskFileError(f"{path}: not a readable safetensors file, truncated or damaged: {error}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise MaskFileError(f"{path}: its metadata do not say how many columns its layers have") from error
    if not isinstance(cols, dict) or not all(type(count) is int and count > 0 for count in cols.values()):
        raise MaskFileError(f"{path}: its metadata do not say how many columns its layers have")
    try:
        return Masks(name=str(path), bits=bits, cols=cols)
    except ValueError as error:
        raise MaskFileError(str(error)) from error
