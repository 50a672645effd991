"""Comparing runs over seeds: whatever was run with the same seeds is compared seed by seed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import TYPE_CHECKING, Any

from supermask.checks import SupermaskError
from supermask.columns import data_frame
from supermask.reports.frames import LABEL, SETTINGS, Runs, frames
from supermask.reports.pairs import Paired, holm, statistics

if TYPE_CHECKING:
    from pandas import DataFrame

_Values = Mapping[int, tuple[float, float]]  # by seed: the measure, and the fraction kept


class CompareError(SupermaskError, ValueError):
    """Runs that cannot be compared; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparisons that were made together; printed, each is a sentence, and what so many seeds can show another."""

    pairs: tuple[Paired, ...]

    def __iter__(self) -> Iterator[Paired]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Paired:
        return self.pairs[index]

    def __str__(self) -> str:
        lines = [str(pair) for pair in self.pairs]
        if len(self.pairs) > 1:
            exact = f"that of the sign-flip test {min(pair.p_exact_holm for pair in self.pairs):.3g}"
            if tested := [pair for pair in self.pairs if not math.isnan(pair.p_holm)]:
                least = min(tested, key=lambda pair: pair.p_holm)
                exact = f"the least p of the t test is {least.p_holm:.3g} ({least.a} - {least.b}), {exact}"
            lines.append(f"Of {len(self.pairs)} comparisons, corrected by Holm, {exact}.")
        return "\n".join(lines)

    def frame(self) -> "DataFrame":
        """One row a comparison; columns are the fields of its record.

        Raises:
            NotInstalled: there is no pandas.
        """
        columns: dict[str, Any] = {one.name: one.type for one in fields(Paired) if one.name != "seeds"}
        rows = [{name: getattr(pair, name) for name in columns} | {"n": pair.n} for pair in self.pairs]
        return data_frame(rows, columns | {"n": int})


def compare(
    runs: "DataFrame | Runs | Mapping[str, Runs]",
    measure: str = "accuracy",
    *,
    by: str | None = None,
    against: object = None,
    at: float | None = None,
    common: bool = False,
) -> Comparison:
    """Compare runs that differ in one column, seed by seed.

    Args:
        runs: as `frames` takes them, or a DataFrame with a row a run or a cycle, such as `frames` gives.
        measure: the column that is compared; of each run at its last cycle.
        by: the column whose values are compared; by default `label` where there is one, else `name`.
        against: the one of them that all others are compared with; by default each is with those that come before it.
        at: take the cycle at this fraction remaining, to 1 %, in place of the last.
        common: where the seeds differ, take those that both have.

    Raises:
        CompareError: no such column, value or rate; fewer than two to compare, or than two seeds; other seeds; several
            values of a seed; seeds of one value of `by` that were run with other settings, where these are known (of
            runs, and of a DataFrame that still has the `attrs` that `frames` gave it); a value that is no number; a run
            that is not finished, unless `at` says which cycle.
        FrameError, RunReadError: as `frames`.
        NotInstalled: there is no pandas or no SciPy.
    """
    table: Any = runs if hasattr(runs, "columns") else frames(runs)
    by = by or (LABEL if LABEL in table.columns else "name")
    for what, name in (("measure", measure), ("by", by), ("seed", "seed")):
        if name not in table.columns:
            raise CompareError(f"{what}={name!r}: no such column; there are {', '.join(map(str, table.columns))}")
    if table[measure].dtype.kind not in "iuf":
        numbers = [str(name) for name, column in table.items() if column.dtype.kind in "iuf" and name != "seed"]
        raise CompareError(f"measure={measure!r} holds no numbers; those that do are {', '.join(numbers)}")
    if table[by].isna().any():
        raise CompareError(f"by={by!r}: {int(table[by].isna().sum())} rows have none; leave their runs out")
    later = () if at is None else ("cycles", "cycles.remaining")  # of the cycles after the one that is compared
    besides = [name for name in table.attrs.get(SETTINGS, ()) if name in table.columns and name not in (by, *later)]
    groups = {
        value: _values(rows, measure, f"{by} {value}", at, besides) for value, rows in table.groupby(by, sort=False)
    }
    if len(groups) < 2:
        raise CompareError(
            f"one {by} to compare, {', '.join(map(str, groups)) or 'none'}: name runs that differ in it, or another "
            f"column by `by`: {', '.join(map(str, table.columns))}"
        )
    if against is not None and against not in groups:
        raise CompareError(f"against={against!r}: no such {by}; there are {', '.join(map(repr, groups))}")
    named = list(groups) if against is None else [against, *(value for value in groups if value != against)]
    chosen = [(later, first) for first, later in combinations(named, 2) if against in (None, first)]
    made = [_compared(measure, (a, groups[a]), (b, groups[b]), common=common) for a, b in chosen]
    return _corrected(made)


def _values(rows: Any, measure: str, group: str, at: float | None, besides: Sequence[str]) -> _Values:
    """By seed, the measure of the chosen cycle and the fraction kept there, of runs that are alike in `besides`."""
    rate = "remaining" if "remaining" in rows.columns else None
    if at is not None:
        rates = [name for name in ("rate", "remaining") if name in rows.columns]
        if not rates:
            raise CompareError(f"at={at:g}: there is no column remaining; leave it out")
        near = sum(abs(rows[name] / at - 1) <= 0.01 for name in rates) > 0
        if not near.any():
            has = ", ".join(f"{one:.4g}" for one in sorted(set(rows[rates[-1]]), reverse=True))
            raise CompareError(f"at={at:g}: {group} was not measured there; it was at {has}")
        rows = rows[near]
    elif "finished" in rows.columns and not rows["finished"].all():
        which = next(name for name in ("path", "run", "seed") if name in rows.columns)
        left = ", ".join(map(str, dict.fromkeys(rows[which][~rows["finished"].astype(bool)])))
        raise CompareError(f"{group}: not finished: {left}: let them end, leave them out, or choose a rate by `at`")
    elif "cycle" in rows.columns:
        run = next((name for name in ("path", "run") if name in rows.columns), "seed")
        rows = rows[rows["cycle"] == rows.groupby(run)["cycle"].transform("max")]
        if rows["cycle"].nunique() > 1:
            last = ", ".join(f"{cycle} of seed {seed}" for cycle, seed in zip(rows["cycle"], rows["seed"], strict=True))
            raise CompareError(
                f"{group}: last cycles are {last}: leave out runs that are not finished, choose a rate by `at`, or "
                "compare by another column"
            )
    found: dict[int, tuple[float, float]] = {}
    kept = rows[rate] if rate else [math.nan] * len(rows)
    for seed, value, remaining in zip(rows["seed"].tolist(), rows[measure].tolist(), kept, strict=True):
        if seed in found:
            raise CompareError(
                f"{group} has several values of seed {seed}: choose a rate by `at`, compare by another column, or "
                "leave runs out"
            )
        if not math.isfinite(value):
            raise CompareError(f"{measure} of {group}, seed {seed}, is {value}: leave the run out, or let it end")
        found[seed] = float(value), float(remaining)
    for name in besides:
        seeds: dict[str, list[str]] = {}
        for seed, value in zip(rows["seed"].tolist(), rows[name].tolist(), strict=True):
            seeds.setdefault(str(value), []).append(str(seed))
        if len(seeds) > 1:
            which = "; ".join(f"{value} of seed {', '.join(some)}" for value, some in seeds.items())
            raise CompareError(
                f"{group}: its seeds differ in {name}: {which}: leave runs out, compare by {name}, or drop that column "
                "where it goes with the seed"
            )
    return found


def _compared(
    measure: str, one: tuple[object, _Values], other: tuple[object, _Values], *, common: bool
) -> dict[str, Any]:
    """The fields of `Paired` but for the corrected ones."""
    (a, of_a), (b, of_b) = one, other
    seeds = sorted(of_a.keys() & of_b.keys())
    missing = [
        f"{name} lacks {', '.join(map(str, lacking))}"
        for name, lacking in ((a, sorted(of_b.keys() - of_a.keys())), (b, sorted(of_a.keys() - of_b.keys())))
        if lacking
    ]
    if missing and not common:
        raise CompareError(f"seeds of {a} and {b} differ: {'; '.join(missing)}: run them, or give common=True")
    if len(seeds) < 2:
        raise CompareError(f"{a} and {b} have {len(seeds)} seed in common: a comparison takes two at least")
    values = [[found[seed] for seed in seeds] for found in (of_a, of_b)]
    rates = [sum(remaining for _, remaining in some) / len(seeds) for some in values]
    numbers = statistics(*([value for value, _ in some] for some in values))
    which = {"a": str(a), "b": str(b), "measure": measure, "seeds": tuple(map(int, seeds))}
    return which | {"remaining_a": rates[0], "remaining_b": rates[1]} | numbers


def _corrected(made: Sequence[Mapping[str, Any]]) -> Comparison:
    holms = {f"{name}_holm": holm([one[name] for one in made]) for name in ("p", "p_exact")}
    return Comparison(
        pairs=tuple(
            Paired(**(dict(one) | {name: corrected[index] for name, corrected in holms.items()}))
            for index, one in enumerate(made)
        )
    )
