"""Many runs as one pandas DataFrame: what they measured, beside the settings in which they differ."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supermask.checks import SupermaskError
from supermask.columns import data_frame
from supermask.reports.lines import device_of, differing, values
from supermask.runs.read import RunRecord, read_run
from supermask.runs.rows import RUN, Kind, columns, rows

if TYPE_CHECKING:
    from pandas import DataFrame

Runs = str | Path | RunRecord | Iterable[str | Path | RunRecord]
LABEL = "label"
SETTINGS = "settings"
"""Of a frame's `attrs`: its columns in which the runs were made differently."""


class FrameError(SupermaskError, ValueError):
    """Runs of which no table can be made; the message says why and what to do."""


def frames(runs: Runs | Mapping[str, Runs], kind: Kind = "cycles") -> "DataFrame":
    """What runs measured, as one pandas DataFrame; NaN where one measured nothing.

    Its columns are, in this order: `label`, where labels are given; `run`, the folder's name; `path`; `name`, of the
    recipe; `seed`; the settings in which these runs differ, by the shortest end of their names that no column has; and
    the fields of the records, measures of the method among them. `attrs["settings"]` has the names of the settings'
    columns, but for the kind of device.

    Args:
        runs: run folders, or runs that were read, in their order; each once. Or such by label.
        kind: "cycles", one row a cycle; "epochs", one an epoch; "layers", one a layer and cycle.

    Raises:
        FrameError: there is no run.
        RunReadError: a path is not a run folder, or the folder is damaged.
        ValueError: there is no such kind.
        NotInstalled: there is no pandas.
    """
    declared = columns(kind)
    labelled = isinstance(runs, Mapping)
    given = [(label, run) for label, some in by_label(runs).items() for run in some]
    found = [values(run) | {"device": device_of(run)} for _, run in given]
    texts = [{name: json.dumps(value, sort_keys=True) for name, value in one.items()} for one in found]
    measured = [rows(run, kind) for _, run in given]
    taken = {LABEL, *RUN, *declared, *(name for some in measured for row in some for name in row)}
    short = differing(texts, taken)
    every: list[dict[str, Any]] = []
    for (label, _), setting, some in zip(given, found, measured, strict=True):
        own = {end: setting.get(name) for name, end in short.items()} | ({LABEL: label} if labelled else {})
        every += [own | row for row in some]
    order: dict[str, type | None] = {LABEL: str} if labelled else {}
    made = data_frame(every, {**order, **RUN, **dict.fromkeys(short.values()), **declared})
    made.attrs[SETTINGS] = [end for name, end in short.items() if name != "device"]
    return made


def by_label(runs: Runs | Mapping[str, Runs]) -> dict[str, list[RunRecord]]:
    """Runs that were read, each folder once, by label; under "" where none is given.

    Raises:
        FrameError: there is no run, or a label has none.
        RunReadError: a path is not a run folder, or the folder is damaged.
    """
    found = {}
    for label, some in (runs if isinstance(runs, Mapping) else {"": runs}).items():
        one_by_one = [some] if isinstance(some, str | Path | RunRecord) else some
        read: dict[Path, RunRecord] = {}
        for run in (one if isinstance(one, RunRecord) else read_run(one) for one in one_by_one):
            read.setdefault(run.path.resolve(), run)
        found[label] = list(read.values())
        if not read:
            raise FrameError(f"no run{f' of label {label!r}' if label else ''}: name run folders")
    if not found:
        raise FrameError("no run: name run folders")
    return found
