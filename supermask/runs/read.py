"""Run folders as typed objects: what a run was told to do and what it measured, read from the files it wrote.

A run that is still going on, or was killed, is read as far as it came: a damaged last line is the line that was being
written. Files that a run did not write (ranks, times, masks) are simply absent.
"""

import json
import math
import os
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from supermask.checks import SupermaskError
from supermask.columns import data_frame
from supermask.edges.overlap import Masks
from supermask.runs.identity import read_config
from supermask.runs.records import (
    CONFIG,
    METRICS,
    RANKS,
    SUMMARY,
    TIMES,
    UNTOLD,
    CycleResult,
    EdgeRanks,
    Ended,
    Epoch,
    EpochTime,
    Evaluation,
    Exported,
    Ranks,
    RunReadError,
    RunSummary,
    SampledEdges,
)
from supermask.runs.rows import RUN, Kind, columns, rows

if TYPE_CHECKING:
    from pandas import DataFrame

_MASK_FILE = re.compile(r"cycle-([1-9][0-9]*)\.safetensors")
_LONGEST_END = 4096


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RunRecord:
    """One run, as its folder has it.

    Attributes:
        path: of the folder.
        name: of the recipe.
        config: the recipe as the run was begun with it.
        seed: of the run.
        epochs, cycles: so far; cycles with their evaluation.
        tickets: exported so far.
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
    cycles: tuple[CycleResult, ...]
    tickets: tuple[Exported, ...]
    ranks: Ranks | None
    times: tuple[EpochTime, ...]
    masks: Mapping[int, Path]
    finished: bool

    def __repr__(self) -> str:
        shown = f"seed={self.seed}, cycles={len(self.cycles)}, epochs={len(self.epochs)}, finished={self.finished}"
        return f"RunRecord({str(self.path)!r}, name={self.name!r}, {shown})"

    @cached_property
    def searches(self) -> tuple[Mapping[str, Any], ...]:
        """The planned cycles."""
        return tuple(stage["cycle"] for stage in self.config["stages"] if "cycle" in stage)

    @property
    def rates(self) -> tuple[float, ...]:
        """Of each planned cycle; where its rule alone decides, what it kept, and 1 as long as nobody knows."""
        kept = {cycle.cycle: cycle.remaining for cycle in self.cycles}
        return tuple(
            kept.get(number, 1.0) if (rate := search["remaining"]) is None else rate
            for number, search in enumerate(self.searches, start=1)
        )

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

    def frame(self, kind: Kind = "cycles") -> "DataFrame":
        """What the run measured as a pandas DataFrame, NaN where it measured nothing.

        Args:
            kind: "cycles", one row a cycle; "epochs", one an epoch; "layers", one a layer and cycle.

        Raises:
            ValueError: there is no such kind.
            NotInstalled: there is no pandas.
        """
        return data_frame(rows(self, kind), {**RUN, **columns(kind)})

    def mask(self, cycle: int = -1) -> dict[str, NDArray[np.bool_]]:
        """The mask of a cycle by layer, True where an edge is selected, in the shape of the layer's weight with its
        outputs first; in releases that did not record shapes, rows x cols.

        Args:
            cycle: its number, from 1; below zero counts from the last cycle that has a mask.

        Raises:
            ValueError: the run has no mask of that cycle.
            MaskFileError: the file is damaged.
        """
        return self.packed_mask(cycle).arrays()

    def packed_mask(self, cycle: int = -1) -> Masks:
        """The mask of a cycle as packed bits; arguments and errors are those of `mask`."""
        numbers = sorted(self.masks)
        if cycle < 0 and -cycle <= len(numbers):
            cycle = numbers[cycle]
        if cycle not in self.masks:
            has = f"cycles {', '.join(map(str, numbers))}" if numbers else "none"
            raise ValueError(f"{self.path} has no mask of cycle {cycle}: it has {has}")
        return read_masks(self.masks[cycle])


def read_run(path: str | Path) -> RunRecord:
    """Read a run folder.

    Raises:
        RunReadError: `path` is not a run folder, or one of its files is damaged before its last line.
    """
    path = Path(path)
    masks = {int(match[1]): file for file in (path / "masks").glob("*") if (match := _MASK_FILE.fullmatch(file.name))}
    return replace(_measured(path), ranks=_ranks(path / RANKS), masks=dict(sorted(masks.items())))


def read_summary(path: str | Path) -> RunSummary:
    """A run folder in short: from the summary that the run wrote at its end, or, where there is none, from its metrics.

    Raises:
        RunReadError: `path` is not a run folder, or one of its files is damaged.
    """
    file = Path(path) / SUMMARY
    try:
        event = json.loads(file.read_bytes())
    except FileNotFoundError:
        return summarise(path)
    except OSError as error:
        raise RunReadError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise RunReadError(f"{file} is damaged: not a JSON object")
    return RunSummary.from_event(event, str(file))


def summarise(path: str | Path) -> RunSummary:
    """A run folder in short, from its configuration, metrics and times.

    Raises:
        RunReadError: as `read_run`.
    """
    run = _measured(Path(path))
    return RunSummary(
        name=run.name,
        seed=run.seed,
        finished=run.finished,
        settings={name: value for name, value in run.config.items() if name not in ("name", "run")},
        cycles=tuple(replace(cycle, layers={}) for cycle in run.cycles),
        tickets=run.tickets,
        seconds=run.seconds,
    )


def finished(path: str | Path) -> bool:
    """Whether the run in folder `path` came to its end: one look at the last line of its metrics."""
    try:
        with (Path(path) / METRICS).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_END))
            *_, line = file.read().removesuffix(b"\n").split(b"\n")
        event = json.loads(line)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(event, dict) and event.get("event") == Ended.event


def settled(path: str | Path) -> bool:
    """Whether a run that came to its end has nothing left to do: its hooks heard of it, its trackers were told all, and
    it has a summary."""
    return (Path(path) / SUMMARY).exists() and not (Path(path) / UNTOLD).exists()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The events of a run folder, in order, as they were written.

    Raises:
        RunReadError: a line before the last is damaged.
    """
    return [event for _, event in _lines(Path(path) / METRICS)]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error; the error of one value is NaN."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def _measured(path: Path) -> RunRecord:
    """A run folder but for its ranks and masks."""
    config = _config(path)
    epochs: list[Epoch] = []
    cycles: dict[int, CycleResult] = {}
    tickets: list[Exported] = []
    ended = False
    for where, event in _lines(path / METRICS):
        kind = event.get("event")
        if kind == Epoch.event:
            epochs.append(Epoch.from_event(event, where))
        elif kind == CycleResult.event:
            cycle = CycleResult.from_event(event, where)
            cycles[cycle.cycle] = cycle
        elif kind == Evaluation.event:
            found = Evaluation.from_event(event, where)
            if found.cycle in cycles:  # an evaluation before any cycle is of no cycle
                cycles[found.cycle] = cycles[found.cycle].evaluated(found)
        elif kind == Exported.event:
            tickets.append(Exported.from_event(event, where))
        elif kind == Ended.event:
            ended = True
    # Times are appended to after a stop as well: a torn line may be anywhere, and an epoch in twice.
    times = {str(event.get("epoch")): (where, event) for where, event in _lines(path / TIMES, torn=True)}
    return RunRecord(
        path=path,
        name=config["name"],
        config=config,
        seed=config["run"]["seed"],
        epochs=tuple(epochs),
        cycles=tuple(cycles[number] for number in sorted(cycles)),
        tickets=tuple(tickets),
        ranks=None,
        times=tuple(EpochTime.from_event(event, where) for where, event in times.values()),
        masks={},
        finished=ended,
    )


def _config(path: Path) -> dict[str, Any]:
    """The recipe of a run folder."""
    recipe = read_config(path) if path.is_dir() else None
    if recipe is None:
        if not path.is_dir():
            raise RunReadError(f"{path} is not a run folder: there is no such folder")
        inside = len(list(path.glob(f"*/{CONFIG}")))
        hint = f", but {inside} folders in it have one: name those, {path}/*" if inside else ""
        raise RunReadError(f"{path} is not a run folder: it has no {CONFIG}{hint}")
    try:
        known = isinstance(recipe["name"], str) and isinstance(recipe["run"]["seed"], int)
        known = known and all(_is_stage(stage) for stage in recipe["stages"])
        code = recipe.get("code", {})
        known = known and isinstance(code, dict) and all(isinstance(said, dict) for said in code.values())
    except (LookupError, TypeError) as error:
        raise RunReadError(f"{path / CONFIG} is not a run's configuration: {type(error).__name__} {error}") from error
    if not known:
        raise RunReadError(
            f"{path / CONFIG} is not a run's configuration: name, seed, stages or code is of another type"
        )
    return recipe


def _is_stage(stage: Any) -> bool:
    """A stage has a name; one that has a cycle, whatever its name, searches."""
    return isinstance(stage, dict) and isinstance(stage["stage"], str) and isinstance(stage.get("cycle", {}), dict)


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
    head = SampledEdges.from_event(lines[0][1], lines[0][0])
    rows = [(where, EdgeRanks.from_event(event, where)) for where, event in lines[1:]]
    if not all(len(edge) == 2 and 0 <= edge[0] < len(head.layers) for edge in head.edges):
        raise RunReadError(f"{lines[0][0]} is damaged: an edge of a layer that is not listed")
    for where, row in rows:
        if len(row.ranks) != len(head.edges) or len(row.selected) != len(head.edges):
            raise RunReadError(f"{where} is damaged: {len(row.ranks)} ranks of {len(head.edges)} edges")
    if not rows or not head.edges:
        return None
    return Ranks(
        layers=tuple(head.layers),
        edges=tuple((layer, flat) for layer, flat in head.edges),
        cycles=tuple(row.cycle for _, row in rows),
        epochs=tuple(row.epoch for _, row in rows),
        ranks=np.array([row.ranks for _, row in rows], dtype=np.float64),
        selected=np.array([row.selected for _, row in rows], dtype=np.bool_),
    )


class MaskFileError(SupermaskError, ValueError):
    """A mask file that cannot be read; the message names it."""


def read_masks(path: str | Path) -> Masks:
    """Masks from a file masks/cycle-N.safetensors of a run folder.

    Raises:
        MaskFileError: there is no such file, or it does not hold masks.
    """
    path = Path(path)
    if not path.is_file():
        raise MaskFileError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            cols, shapes = _sizes(file.metadata() or {})
            bits = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise MaskFileError(f"{path}: not a readable safetensors file, truncated or damaged: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise MaskFileError(f"{path}: its metadata do not say how many columns its layers have") from error
    try:
        return Masks(name=str(path), bits=bits, cols=cols, shapes=shapes)
    except ValueError as error:
        raise MaskFileError(str(error)) from error


def _sizes(said: Mapping[str, str]) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """By layer, its columns and the shape of its weight; files of earlier releases have no shapes.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: the metadata do not say them.
    """
    if "shapes" in said:
        shapes = {name: tuple(shape) for name, shape in json.loads(said["shapes"]).items()}
        cols = {name: math.prod(shape[1:]) for name, shape in shapes.items()}
    else:
        cols, shapes = dict(json.loads(said["cols"]).items()), {}
    sizes = (*cols.values(), *(size for shape in shapes.values() for size in shape))
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(sizes)
    return cols, shapes
