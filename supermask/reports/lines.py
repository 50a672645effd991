"""Lines of a figure: runs that differ only in their seed are one line, with means and standard errors over seeds."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from supermask.checks import SupermaskError, cut
from supermask.runs.identity import FIRST, flat
from supermask.runs.read import RunRecord, mean_and_error
from supermask.runs.records import CycleResult
from supermask.runs.spelled import spelled_out

Measure = Literal[
    "accuracy", "recalibrated", "dying", "dying_cumulative", "explored", "apparent", "apparent_of_all", "dead"
]
_RUN_OPTIONS = ("run", "device", "processes")  # where and how a run happens, not what it does


@dataclass(frozen=True, kw_only=True)
class Point:
    """One cycle of a line, over seeds.

    Attributes:
        cycle: its number, from 1.
        remaining: fraction kept over all masked edges.
        seeds: what each seed found; runs of one seed count as one seed.
    """

    cycle: int
    remaining: float
    seeds: Mapping[int, Sequence[CycleResult]]

    def mean(self, measure: Measure) -> tuple[float, float] | None:
        """Mean and standard error (NaN for one seed) over the seeds that have the measure; None where none has."""
        by_seed = self._by_seed(measure)
        return mean_and_error(by_seed) if by_seed else None

    def count(self, measure: Measure) -> int:
        """How many seeds have the measure."""
        return len(self._by_seed(measure))

    def _by_seed(self, measure: Measure) -> list[float]:
        found = []
        for records in self.seeds.values():
            held = [value for record in records if (value := getattr(record, measure)) is not None]
            if held:
                found.append(mean_and_error(held)[0])
        return found


@dataclass(frozen=True, kw_only=True)
class Line:
    """What a figure draws in one colour.

    Attributes:
        label: in the legend.
        points: from the most edges remaining to the fewest.
        dense: trained weights: a level to compare with, not a function of the remaining edges.
        runs: behind the points.
    """

    label: str
    points: Sequence[Point]
    dense: bool = False
    runs: Sequence[RunRecord] = ()


def line(label: str, runs: Sequence[RunRecord]) -> Line:
    """These runs as one line: a point for each cycle number and kept count, whatever else they differ in."""
    points: dict[tuple[int, int], dict[int, list[CycleResult]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for record in run.cycles:
            points[record.cycle, record.kept][run.seed].append(record)
    drawn = []
    for (cycle, _), seeds in sorted(points.items(), key=lambda item: (item[0][0], -item[0][1])):
        remaining = next(iter(seeds.values()))[0].remaining
        drawn.append(
            Point(cycle=cycle, remaining=remaining, seeds={seed: tuple(seeds[seed]) for seed in sorted(seeds)})
        )
    return Line(
        label=label,
        points=tuple(sorted(drawn, key=lambda point: -point.remaining)),
        dense=bool(runs) and all(run.dense for run in runs),
        runs=tuple(runs),
    )


class LabelError(SupermaskError, ValueError):
    """Labels that are not one a line; the message lists the lines."""


def group(runs: Iterable[RunRecord], labels: Sequence[str] = ()) -> list[Line]:
    """Runs as lines, in the order in which each line's first run comes.

    Runs of a line agree in their recipe, the code of its parts and the kind of device, but for the seed and how they
    ran. Runs of one cycle may differ in its remaining too: they are points of the line. A line is called after what
    tells it from the others: its recipe, without the words with which all their names begin, and where two recipes have
    one name, the settings in which they differ. `shared` says the rest.

    Args:
        labels: what lines are called instead, one a line, in their order.

    Raises:
        LabelError: there are more or fewer labels than lines, or two are the same.
    """
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    seen = set()
    for run in runs:
        if (path := run.path.resolve()) not in seen:
            groups[_key(run)].append(run)
            seen.add(path)
    short = _labels([members[0] for members in groups.values()])
    if labels and (len(labels) != len(short) or len(set(labels)) < len(labels)):
        lines = ", ".join(f"{label} ({members[0].path})" for label, members in zip(short, groups.values(), strict=True))
        raise LabelError(
            f"labels {', '.join(labels)}: expected one for each of {len(short)} lines, all different; the lines are "
            f"{lines}"
        )
    return [line(label, members) for label, members in zip(labels or short, groups.values(), strict=True)]


def shared(lines: Sequence[Line]) -> str:
    """What all runs of several lines have in common, for a title: how their recipes' names begin, data, network."""
    runs = [run for drawn in lines for run in drawn.runs]
    if not runs:
        return ""
    parts = [_beginning([run.name for run in runs])] if len(lines) > 1 else []
    for said in ({_part(run.config.get(part)) for run in runs} for part in ("data", "network")):
        parts += said if len(said) == 1 else ()
    return ", ".join(part for place, part in enumerate(parts) if part and part.lower() not in _lower(parts[:place]))


def settings(run: RunRecord) -> dict[str, str]:
    """The recipe's settings by dotted name, as text; seed and run options are left out, and so is the remaining rate of
    a run of one cycle."""
    return {name: _text(value) for name, value in values(run).items()}


def values(run: RunRecord) -> dict[str, Any]:
    """The same as they are: numbers, truth values, lists, text."""
    found: dict[str, Any] = {}
    config = spelled_out(run.config)
    for name, value in {**FIRST, **config}.items():
        if name not in ("name", "stages", "code", *_RUN_OPTIONS):
            found |= dict(flat(value, name, lists=False))
    cycles = [stage["cycle"] for stage in config["stages"] if "cycle" in stage]
    found["cycles"] = len(cycles)
    if len(cycles) > 1:
        found["cycles.remaining"] = f"{_text(cycles[0].get('remaining'))} to {_text(cycles[-1].get('remaining'))}"
    for name in dict.fromkeys(name for cycle in cycles for name in cycle if name != "remaining"):
        found[f"cycles.{name}"] = _distinct(cycle[name] for cycle in cycles if name in cycle)
    stages = [stage for stage in run.config["stages"] if "cycle" not in stage]
    for kind, name in dict.fromkeys((stage.get("stage"), name) for stage in stages for name in stage):
        if name != "stage":
            of_kind = (stage[name] for stage in stages if stage.get("stage") == kind and name in stage)
            found[f"{kind}.{name}"] = _distinct(of_kind)
    return found | _code(run.config.get("code", {}))


def _code(code: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Types of the user's parts by their names, and what tells two parts of one type apart, short."""
    by_part: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for name, said in code.items():  # all stages in one
        by_part["stages" if name.startswith("stages.") else name].append(said)
    found: dict[str, Any] = {}
    for part, every in by_part.items():
        found[part] = _distinct(said.get("type") for said in every)
        digests = [f"{file} {digest[:8]}" for said in every for file, digest in said.get("source", {}).items()]
        found[f"{part}.source"] = _distinct(digests)
        for said in every:
            found |= {name: one for name, one in flat(said.get("bound", {}), part) if one != {}}
    return found


def differing(all_settings: Sequence[Mapping[str, str]], taken: Collection[str] = ()) -> dict[str, str]:
    """Settings in which these differ: their dotted name, and the shortest end of it that no other of them has, and that
    is not taken."""
    names = dict.fromkeys(name for settings in all_settings for name in settings)
    differ = [name for name in names if len({settings.get(name) for settings in all_settings}) > 1]
    short = {}
    for name in differ:
        parts = name.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        short[name] = next(
            end
            for end in (*ends, f"settings.{name}")
            if end not in taken
            and (sum(f".{other}".endswith(f".{end}") for other in differ) == 1 or end == name or end not in ends)
        )
    return short


def _key(run: RunRecord) -> str:
    """The same for two runs of one line."""
    config = {name: value for name, value in {**FIRST, **run.config}.items() if name not in _RUN_OPTIONS}
    config["device"] = device_of(run)
    if len(run.searches) == 1:
        config["stages"] = [
            stage | {"cycle": {name: value for name, value in stage["cycle"].items() if name != "remaining"}}
            if "cycle" in stage
            else stage
            for stage in config["stages"]
        ]
    return json.dumps(config, sort_keys=True)


def device_of(run: RunRecord) -> str:
    """The kind of device that it ran on, whichever of its kind."""
    return str(run.config.get("device", "cpu")).partition(":")[0]


def _labels(runs: Sequence[RunRecord]) -> list[str]:
    """A label for each of these runs, of different lines."""
    every = [run.name for run in runs]
    beginning = _beginning(every)
    details: dict[str, dict[str, str]] = {}
    all_settings = [settings(run) | {"device": device_of(run)} for run in runs]
    for name in set(every):
        details[name] = differing([found for run, found in zip(runs, all_settings, strict=True) if run.name == name])
    labels: list[str] = []
    for run, found in zip(runs, all_settings, strict=True):
        own = [f"{end}={found[full]}" for full, end in details[run.name].items() if full in found]
        head = run.name.removeprefix(beginning).removeprefix("_")
        label = " ".join([*([head] if head else []), *own]) or run.name
        again = sum(other == label or other.startswith(f"{label} (") for other in labels)
        labels.append(f"{label} ({again + 1})" if again else label)
    return labels


def _beginning(names: Sequence[str]) -> str:
    """The words, joined by _, with which all of these names begin, leaving each its last; of one name all of it."""
    if len(set(names)) == 1:
        return names[0]
    first, *others = (name.split("_")[:-1] for name in names)
    count = 0
    while count < len(first) and all(words[count : count + 1] == [first[count]] for words in others):
        count += 1
    return "_".join(first[:count])


def _part(value: Any) -> str:
    """Data or a network of a configuration, in a few words."""
    if not isinstance(value, Mapping):
        return ""
    given = value.get("arguments")
    found = [value.get("name") or value.get("type"), *(given.values() if isinstance(given, Mapping) else ())]
    return cut(" ".join(_text(one) for one in found if one is not None), 60)


def _lower(texts: Iterable[str]) -> set[str]:
    return {text.lower() for text in texts}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _distinct(values: Iterable[Any]) -> Any:
    """The one value, or the different ones as text."""
    texts = {_text(value): value for value in values}
    return next(iter(texts.values())) if len(texts) == 1 else "+".join(texts)
