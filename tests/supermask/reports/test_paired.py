"""Comparing runs seed by seed: what is paired with what, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from supermask.methods.edge_popup import ep
from supermask.reports.frames import frames
from supermask.reports.paired import CompareError, compare
from supermask.runs.read import read_run
from supermask.runs.stages import search
from tests.supermask.runs.run_folders import HALVED, write_ep, write_run
from tests.supermask.runs.small_runs import BASE, RATES, placed


def soft(path: Path, seeds: int = 5, **options: object) -> list[Path]:
    return [write_run(path / f"soft-{seed}", seed=seed, **options) for seed in range(seeds)]  # type: ignore[arg-type]


def table(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame(
        {"name": ["x", "x", "y", "y"], "seed": [0, 1, 0, 1], "accuracy": [1.0, 2.0, 0.0, 0.5]} | columns
    )


def test_runs_are_compared_at_their_last_cycle_seed_by_seed(tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1, 2):
        runs += [placed(BASE, tmp_path / f"soft-{seed}", seed=seed)]
        single = replace(BASE, name="ep", stages=search(ep(RATES[-1])))
        runs += [placed(single, tmp_path / f"ep-{seed}", seed=seed)]
    for run in runs:
        run.execute()
    folders = sorted(tmp_path.glob("*"), reverse=True)
    (found,) = compare(folders)
    a, b = (
        [read_run(tmp_path / f"{name}-{seed}").cycles[-1].accuracy for seed in (0, 1, 2)] for name in ("ep", "soft")
    )
    assert (found.a, found.b, found.measure, found.seeds, found.n) == ("ep", "base", "accuracy", (0, 1, 2), 3)
    assert (found.mean_a, found.mean_b) == pytest.approx((sum(a) / 3, sum(b) / 3))
    expected = stats.ttest_rel(a, b)
    assert (found.t, found.p, found.p_holm) == pytest.approx((expected.statistic, expected.pvalue, expected.pvalue))
    assert found.least_p == 0.25
    assert compare(frames(folders)).pairs == compare(folders).pairs


def test_a_rate_is_chosen_by_at(tmp_path: Path) -> None:
    runs = soft(tmp_path, 3) + write_ep(tmp_path, seeds=(0, 1, 2))
    with pytest.raises(CompareError, match="name digits_ep has several values of seed 0: choose a rate by `at`"):
        compare(runs)
    (found,) = compare(runs, "dying", at=0.25)
    frame = frames(runs)
    near = frame[(frame["remaining"] - 0.25).abs() < 1e-3]
    means = near.groupby("name", sort=False)["dying"].mean()
    assert (found.b, found.a) == tuple(means.index)
    assert (found.mean_b, found.mean_a) == pytest.approx(tuple(means))
    assert found.remaining_a == found.remaining_b == pytest.approx(0.25, abs=1e-3)
    with pytest.raises(CompareError, match=r"at=0.3: name digits_soft_iep was not measured there; it was at 0.5, 0.25"):
        compare(runs, at=0.3)


def test_labels_settings_and_a_baseline(tmp_path: Path) -> None:
    runs = {name: soft(tmp_path / name, 3, lr=lr) for name, lr in (("a", 0.1), ("b", 0.2), ("c", 0.3))}
    every = compare(runs)
    assert [(pair.a, pair.b) for pair in every] == [("b", "a"), ("c", "a"), ("c", "b")]
    against = compare(runs, against="b")
    assert [(pair.a, pair.b) for pair in against] == [("a", "b"), ("c", "b")]
    assert every[0].difference == -against[0].difference
    listed = [path for some in runs.values() for path in some]
    assert [(pair.a, pair.b) for pair in compare(listed, by="lr", against=0.3)] == [("0.1", "0.3"), ("0.2", "0.3")]


def test_seeds_that_were_run_with_other_settings_are_not_one_group(tmp_path: Path) -> None:
    """Seed 0 at one learning rate and seed 1 at another is no comparison over seeds."""
    other = [write_run(tmp_path / "other-0", name="other", seed=0, lr=0.1)]
    other += [write_run(tmp_path / "other-1", name="other", seed=1, lr=0.3)]
    runs = [*soft(tmp_path, 2), *other]
    says = r"name other: its seeds differ in lr: 0.1 of seed 0; 0.3 of seed 1: leave runs out, compare by lr, or drop"
    with pytest.raises(CompareError, match=says):
        compare(runs)
    table = frames(runs)
    assert table.attrs["settings"] == ["lr"]
    with pytest.raises(CompareError, match=says):
        compare(table[table["cycle"] == 1])
    assert len(compare(table.drop(columns="lr"))) == 1


def test_several_comparisons_are_corrected_together() -> None:
    values = {"x": [1.0, 2.0, 3.0, 4.0], "y": [0.0, 0.5, 2.5, 3.5], "z": [0.9, 2.1, 3.0, 4.2]}
    rows = [(name, seed, value) for name, some in values.items() for seed, value in enumerate(some)]
    found = compare(pd.DataFrame(rows, columns=["name", "seed", "accuracy"]))
    p = [stats.ttest_rel(values[a], values[b]).pvalue for a, b in (("y", "x"), ("z", "x"), ("z", "y"))]
    assert [pair.p for pair in found] == pytest.approx(p)
    order = sorted(p)
    assert sorted(pair.p_holm for pair in found) == pytest.approx(
        [3 * order[0], max(3 * order[0], 2 * order[1]), max(3 * order[0], 2 * order[1], order[2])]
    )
    assert [pair.p_exact for pair in found] == [0.125, 0.75, 0.125]
    assert [pair.p_exact_holm for pair in found] == [0.375, 0.75, 0.375]
    frame = found.frame()
    assert frame["p_holm"].tolist() == [pair.p_holm for pair in found]
    assert frame["n"].tolist() == [4, 4, 4]
    assert len(found) == 3
    assert str(found).splitlines()[-1].startswith("Of 3 comparisons, corrected by Holm, the least p of the t test is ")


def test_words_say_what_five_seeds_can_show(tmp_path: Path) -> None:
    shifted = [write_run(tmp_path / f"hard-{seed}", seed=seed, name="hard", rates=HALVED[:2]) for seed in range(5)]
    text = str(compare(soft(tmp_path) + shifted))
    assert text.startswith("hard - digits_soft_iep (at 25 and 12.5 % remaining): accuracy +0.0")
    assert "sign-flip test p = 0.0625" in text
    assert "Five pairs: the sign-flip test cannot give less than 0.0625; at this spread a difference of " in text


def test_other_seeds_are_named_and_common_ones_may_be_taken(tmp_path: Path) -> None:
    runs = {"a": soft(tmp_path / "a", 4), "b": soft(tmp_path / "b", 5)[1:]}
    with pytest.raises(CompareError, match=r"seeds of b and a differ: b lacks 0; a lacks 4: run them, or give common"):
        compare(runs)
    (found,) = compare(runs, common=True)
    assert found.seeds == (1, 2, 3)
    with pytest.raises(CompareError, match="b and a have 1 seed in common: a comparison takes two at least"):
        compare({"a": runs["a"][:1], "b": soft(tmp_path / "c", 1)})


def test_unfinished_runs_are_named(tmp_path: Path) -> None:
    runs = [*soft(tmp_path, 2), write_run(tmp_path / "cut", seed=2, rates=HALVED[:2])]
    with pytest.raises(
        CompareError, match="last cycles are 3 of seed 0, 3 of seed 1, 2 of seed 2: leave out runs that"
    ):
        compare({"a": runs, "b": soft(tmp_path / "b", 3)})
    assert compare({"a": runs, "b": soft(tmp_path / "c", 3)}, at=0.5)[0].n == 3
    cut = [write_run(tmp_path / f"d{seed}", seed=seed, rates=HALVED[:2], finished=False) for seed in range(3)]
    for other in (cut, soft(tmp_path / "d", 3)):  # cut at the same cycle, or not
        for given in ({"a": cut, "b": other}, frames({"a": cut, "b": other})):
            with pytest.raises(
                CompareError, match=r"label a: not finished: .*d0, .*d1, .*d2: let them end, leave them"
            ):
                compare(given)
    assert compare({"a": cut, "b": soft(tmp_path / "e", 3)}, at=0.5)[0].n == 3


def test_a_difference_that_is_the_same_in_every_pair_is_said() -> None:
    values = {"x": [0.5, 0.75, 1.0], "y": [0.25, 0.5, 0.75], "z": [0.25, 0.6, 0.75]}
    rows = [(name, seed, value) for name, some in values.items() for seed, value in enumerate(some)]
    frame = pd.DataFrame(rows, columns=["name", "seed", "accuracy"])
    same = "y - x: accuracy -0.25, the same in every pair, so there is no interval and no t test; sign-flip test"
    text = str(compare(frame)).splitlines()
    assert text[0] == f"{same} p = 0.25. Three pairs: the sign-flip test cannot give less than 0.25."
    assert "the least p of the t test is" in text[-1]
    both = frame[frame["name"] != "z"]
    twice = pd.concat([both, both.assign(name=both["name"] + "2", accuracy=both["accuracy"] / 2)])
    assert "nan" not in str(compare(twice[twice["name"] != "x2"]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"measure": "acuracy"}, "measure='acuracy': no such column; there are name, seed, accuracy"),
        ({"measure": "name"}, "measure='name' holds no numbers; those that do are accuracy"),
        ({"by": "lr"}, "by='lr': no such column"),
        ({"against": "z"}, "against='z': no such name; there are 'x', 'y'"),
        ({"at": 0.5}, "at=0.5: there is no column remaining"),
    ],
)
def test_what_is_not_there_is_named(options: dict[str, object], says: str) -> None:
    with pytest.raises(CompareError, match=says):
        compare(table(), **options)  # type: ignore[arg-type]


def test_values_that_are_none_and_what_is_alone() -> None:
    with pytest.raises(CompareError, match="accuracy of name y, seed 1, is nan: leave the run out, or let it end"):
        compare(table(accuracy=[1.0, 2.0, 0.0, float("nan")]))
    with pytest.raises(CompareError, match="accuracy of name x, seed 0, is inf"):
        compare(table(accuracy=[float("inf"), 2.0, 0.0, 1.0]))
    with pytest.raises(CompareError, match="one name to compare, x: name runs that differ in it"):
        compare(table(name=["x"] * 4, seed=[0, 1, 2, 3]))
    with pytest.raises(CompareError, match="by='lr': 2 rows have none"):
        compare(table(lr=[0.1, 0.1, None, None]), by="lr")
    (found,) = compare(table())
    assert (found.difference, found.remaining_a) == pytest.approx((-1.25, float("nan")), nan_ok=True)
