"""Which run a folder holds: its configuration and the environment it was begun in, and in what two of them differ."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from supermask.methods.cycles import cycle_fields
from supermask.runs.records import CONFIG, RunReadError


def begun_in(path: Path) -> dict[str, Any] | None:
    """The environment of the run in folder `path`; None where there is none that can be read."""
    try:
        found = json.loads((path / CONFIG).read_bytes())["environment"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


RESULTS = 1
"""Of results: raised only where the same configuration can give other results, on CPU to the bit, than it gave before.

Runs of another number are other runs. Those that say none are of number 1."""
FIRST: Mapping[str, Any] = MappingProxyType({"results": 1})
"""What configurations of releases that did not say it had."""


def read_config(path: Path) -> dict[str, Any] | None:
    """The recipe's configuration in a run folder of any release; None where the run ended before it was written.

    Raises:
        RunReadError: the file is damaged.
    """
    file = path / CONFIG
    try:
        recipe: dict[str, Any] = json.loads(file.read_bytes())["recipe"]
        for stage in recipe.get("stages", ()):
            if "cycle" in stage:
                stage["cycle"] = cycle_fields(stage["cycle"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RunReadError(f"{file} is not a run's configuration: {type(error).__name__} {error}") from error
    return recipe


def newest(parent: Path, name: str, config: Mapping[str, Any], besides: Sequence[str]) -> Path | None:
    """The run folder `parent`/`name`-N of the highest N with this configuration, `besides` these settings, if any."""
    for path, began in _begun(parent, name):
        if not differences(began, config, besides):
            return path
    return None


def why_none(parent: Path, name: str, config: Mapping[str, Any], besides: Sequence[str]) -> str:
    """In what the newest run of that name is another one; nothing where there is no run of it."""
    for path, began in _begun(parent, name):
        return f" ({path} is another run: {'; '.join(differences(began, config, besides))})"
    return ""


def _begun(parent: Path, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Run folders `parent`/`name`-N and what was begun there, the highest N first."""
    numbers = (path.name.removeprefix(f"{name}-") for path in parent.glob(f"{name}-*"))
    for number in sorted((int(number) for number in numbers if number.isdecimal()), reverse=True):
        path = parent / f"{name}-{number}"
        if (began := read_config(path)) is not None:
            yield path, began


def differences(began: Mapping[str, Any], config: Mapping[str, Any], besides: Sequence[str]) -> list[str]:
    """Where two configurations differ, `besides` these settings: "training.lr was 0.3, is 0.1"."""
    before, now = dict(flat({**FIRST, **began})), dict(flat({**FIRST, **config}))
    early = "results" not in began
    return [
        _difference(name, before.get(name), now.get(name), early=early)
        for name in sorted(before | now)
        if before.get(name) != now.get(name) and name not in besides
    ]


def _difference(name: str, before: Any, now: Any, *, early: bool) -> str:
    """In words; `early` is a run of a release that recorded no code."""
    if not name.startswith("code."):
        return f"{name} was {before!r}, is {now!r}"
    part, _, what = name.removeprefix("code.").rpartition(".type")
    if part and not what:
        unsaid = "not recorded" if early else "supermask's own"
        return f"the type of {part} was {before or unsaid}, is {now or unsaid}"
    part, is_source, file = name.removeprefix("code.").partition(".source.")
    if is_source:
        digests = ("none" if one is None else f"of SHA-256 {one[:12]}" for one in (before, now))
        return "the code of {} in {} was {}, is {}".format(part, file, *digests)
    return f"{name.removeprefix('code.')} was {before!r}, is {now!r}"


def flat(value: Any, name: str = "", *, lists: bool = True) -> Iterator[tuple[str, Any]]:
    """Each plain value in nested mappings (and, with `lists`, lists), by its dotted name; an empty one is plain."""
    entries: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        entries = value.items()
    elif lists and isinstance(value, list):
        entries = enumerate(value)
    if not entries or not value:
        yield name, value
        return
    for key, inner in entries:
        yield from flat(inner, f"{name}.{key}" if name else str(key), lists=lists)
