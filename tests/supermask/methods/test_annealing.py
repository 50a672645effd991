"""Rates that go down within a cycle: the formulas, what is selected in each epoch, and going on in the middle."""

from pathlib import Path
from typing import Any

import pytest

from supermask.data.digits import Digits
from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import EP
from supermask.methods.iep import IEP
from supermask.methods.rates import Searching
from supermask.networks.allocation import Allocator
from supermask.networks.architecture import Architecture
from supermask.runs.options import RunOptions
from supermask.runs.read import read_run
from supermask.runs.recipe import Recipe
from supermask.runs.validation import Validation
from supermask.training.training import Training

EPOCHS = 4


def test_the_published_curves() -> None:
    """Zhu and Gupta 2017: s_f + (s_i - s_f) (1 - t / n)^3, for the edges that are left."""
    kind: dict[str, Any] = {"remaining": 0.1, "anneal_from": 0.9, "anneal_epochs": 4}
    cubic = Cycle(anneal="cubic", **kind)
    assert [cubic.rate(e, 6) for e in range(6)] == pytest.approx([0.9, 0.4375, 0.2, 0.1125, 0.1, 0.1])
    linear = Cycle(anneal="linear", **kind)
    assert [linear.rate(e, 6) for e in range(6)] == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1, 0.1])
    exponential = Cycle(anneal="exponential", **kind | {"anneal_epochs": 2})
    assert [exponential.rate(e, 3) for e in range(3)] == pytest.approx([0.9, 0.3, 0.1])
    half = Cycle(remaining=0.5, anneal="linear")
    assert [half.rate(e, 5) for e in range(5)] == pytest.approx([1.0, 0.75, 0.5, 0.5, 0.5])
    assert Cycle(remaining=0.5).rate(0, 5) == 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"anneal": "square"}, "anneal='square'"),
        ({"anneal_from": 0.9}, "anneal_from=0.9 and anneal_epochs=None with anneal='none'"),
        ({"anneal_epochs": 2}, "anneal_epochs=2 with anneal='none'"),
        ({"anneal": "cubic", "anneal_from": 0.2}, "anneal_from=0.2: expected a rate from remaining=0.5 up"),
        ({"anneal": "cubic", "anneal_epochs": 0}, "anneal_epochs=0: expected at least one"),
    ],
)
def test_settings_that_nothing_would_read_are_refused(changes: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cycle(remaining=0.5, **changes)


def test_one_epoch_at_least_is_at_the_cycle_s_rate() -> None:
    with pytest.raises(ValueError, match="anneal_epochs=3: the cycle has 3 epochs"):
        Cycle(remaining=0.5, anneal="cubic", anneal_epochs=3).rate(0, 3)
    with pytest.raises(ValueError, match="anneal_epochs=3 with anneal='none'"):
        EP(anneal_epochs=3)


def test_a_cycle_comes_down_from_the_one_before() -> None:
    cycles = IEP(given=(0.5, 0.2), anneal="linear", anneal_epochs=1, allocate=Allocator(kind="erk")).phases()
    assert [(c.anneal_from, c.remaining, c.anneal_epochs) for c in cycles] == [(1.0, 0.5, 1), (0.5, 0.2, 1)]
    assert {c.allocate for c in cycles} == {Allocator(kind="erk")}


def recipe(method: Searching, folder: Path, **more: Any) -> Recipe:
    return Recipe(
        name="annealed",
        data=Digits(hold_out=100),
        network=lambda classes: Architecture(name="mlp", arguments={"sizes": [64, 24, classes]}),
        training=Training(epochs=EPOCHS, lr=0.3),
        method=method,
        run=RunOptions(folder=folder, device="cpu", quiet=True),
        **more,
    )


@pytest.mark.parametrize("space", ["all", "survivors"])
def test_each_epoch_has_its_rate(space: Any, tmp_path: Path) -> None:
    method = IEP(given=(0.5, 0.2), space=space, anneal="linear", allocate=Allocator(kind="equal"))
    recipe(method, tmp_path / "run").execute()
    run = read_run(tmp_path / "run")
    wanted = [1.0, 0.75, 0.5, 0.5, 0.5, 0.35, 0.2, 0.2]
    assert [epoch.remaining for epoch in run.epochs] == pytest.approx(wanted, abs=1e-3)
    assert [cycle.remaining for cycle in run.cycles] == pytest.approx([0.5, 0.2], abs=1e-3)


def test_the_picked_epoch_is_one_of_the_cycle_s_rate(tmp_path: Path) -> None:
    method = EP(remaining=0.02, anneal="linear", anneal_epochs=3)  # the first epochs are the better ones
    recipe(method, tmp_path / "run", validation=Validation(every=1, pick="best")).execute()
    run = read_run(tmp_path / "run")
    assert max(epoch.validation or 0 for epoch in run.epochs) > (run.epochs[-1].validation or 0)
    assert run.cycles[0].picked == EPOCHS
    assert run.cycles[0].remaining == pytest.approx(0.02, abs=2e-3)
