"""The study of layer-wise rates: its rows, what its tables say, and the whole command at its smallest."""

from pathlib import Path
from typing import Any

import pytest

from supermask import EPLong, RandomMask
from supermask.recipes._grid import at_rates
from supermask.recipes._settings import Other
from supermask.recipes.layerwise import ALLOCATIONS, PINNED, RATES, Layerwise, Row, between, experiments, rows
from supermask.reports.lines import Line, Point
from supermask.runs.records import CycleResult
from tests.recipes.command import run


def reached(*accuracies: float) -> Line:
    """Of one seed, at as many rates."""
    points = []
    for cycle, accuracy in enumerate(accuracies, start=1):
        found = CycleResult(
            cycle=cycle, rate=0.5**cycle, remaining=0.5**cycle, kept=1, edges=2, loss=None, train_accuracy=None,
            dying=0, explored=0, apparent=0, apparent_of_all=0, dying_cumulative=0, dead_units={}, accuracy=accuracy,
        )  # fmt: skip
        points.append(Point(cycle=cycle, remaining=found.remaining, seeds={0: (found,)}))
    return Line(label="", points=points)


def row(of: str, shared: str) -> Row:
    return Row(title=f"{of}, {shared}", name="one", method=EPLong(), network="mlp", of=of, shared=shared)


def test_what_matters_is_between_highest_and_lowest() -> None:
    lines = {
        row("EP", "uniform"): reached(0.9, 0.5),
        row("EP", "ERK"): reached(0.8, 0.7),
        row("soft iEP", "uniform"): reached(0.96, 0.6),
        row("soft iEP", "ERK"): reached(0.9, 0.9),
        row("soft iEP", PINNED): reached(1.0, 1.0),
        row("random mask", "ERK"): reached(0.1, 0.1),
    }
    assert list(between(lines, 2)) == [
        ["ways to share edges out, under one search", "8.0", "25.0"],  # of 10 and 6, of 20 and 30
        ["searches, under one way", "8.0", "15.0"],  # of 6 and 10, of 10 and 20
    ]


def test_every_row_is_a_run_of_its_own() -> None:
    grid = Layerwise()
    for name, setting in grid.settings().items():
        compared = rows(name)
        assert len(compared) == 4 * len(ALLOCATIONS) - 1, "a mask that no step is taken for is not annealed"
        made = experiments(grid, setting, compared)
        expected = 0
        for one in compared:
            assert one.method
            rates = 1 if isinstance(one.method, RandomMask) else len(grid.lrs)
            expected += rates * len(at_rates(one.method, RATES))
        assert len({one.job(grid, 0).folder for one in made}) == len(made) == expected
        whole = {one.label for one in made if one.conversion.overrides}
        assert whole == {one.label for one in made if f", {PINNED}, lr" in one.label}


def test_another_data_set_has_its_own_network() -> None:
    assert list(Layerwise(data="cifar10").settings()) == ["cifar10"]
    assert list(Layerwise(networks=("conv4",), cycles=2).settings()) == ["conv4"]
    assert Layerwise(cycles=2).settings()["mlp"].rates == RATES[:2]


@pytest.mark.parametrize(("data", "hold_out"), [("digits", 200), ("cifar10", 200), ("imagenet", 0.5)])
def test_cycles_are_counted_of_the_study_s_own_rates(data: Any, hold_out: float) -> None:
    for setting in Layerwise(data=data, cycles=len(RATES), hold_out=hold_out).settings().values():
        assert setting.rates == RATES
    with pytest.raises(ValueError, match=f"cycles=6: on {data} there are 5"):
        Layerwise(data=data, cycles=6)


@pytest.mark.parametrize(
    ("given", "of"), [({"data": "cifar10"}, "cifar10"), ({"network": Other(name="resnet18")}, "resnet18")]
)
def test_networks_of_the_digits_are_of_nothing_else(given: Any, of: str) -> None:
    said = rf"networks=\('mlp',\): they are the digits' two, and the network is that of {of}: leave it out"
    with pytest.raises(ValueError, match=said):
        Layerwise(networks=("mlp",), **given)
    assert list(Layerwise(**given).settings()) == [of]


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    small = ["--seeds", 1, "--epochs", 2, "--cycles", 2, "--lrs", 0.3, "--networks", "mlp", "--folder", "grid"]
    done = run("recipes.layerwise", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "grid" / "layerwise.md").read_text()
    heads = [line for line in written.splitlines() if line.startswith("| ") and "%" in line]
    assert "| method | edges shared out | learning rate | 46 % | 21.5 % |" in heads
    first = [line.split(" | ") for line in written.splitlines() if line.startswith(("| EP", "| soft iEP | "))]
    assert len(first) == 2 * len(ALLOCATIONS)
    assert all(float(line[3]) > 20 for line in first)
    assert "| random mask | uniform |  | " in written
    assert "| % of all | units without an input |" in written
    assert {path.name for path in (tmp_path / "grid").iterdir() if path.is_file()} == {
        "layerwise.md", "layerwise.png", "layerwise.csv"
    }  # fmt: skip
    again = run("recipes.layerwise", *small, cwd=tmp_path)
    assert "28 runs in grid, 28 of them done" in again.stdout
