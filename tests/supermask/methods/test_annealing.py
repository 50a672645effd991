"""Rates that go down within a cycle: the formulas, what is selected in each epoch, and going on in the middle."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermask.data.digits import Digits
from supermask.edges.draws import kept_count
from supermask.methods.baselines import RandomMask
from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import EP
from supermask.methods.iep import IEP
from supermask.methods.multicoated import Multicoated
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
    with pytest.raises(ValueError, match=r"anneal_epochs=1: the cycle has 1 epochs, .*; train it for more of them"):
        Cycle(remaining=0.5, anneal="cubic").rate(0, 1)
    with pytest.raises(ValueError, match="anneal_epochs=3 with anneal='none'"):
        EP(anneal_epochs=3)
    with pytest.raises(ValueError, match="anneal='cubic': no cycle has an epoch"):
        RandomMask(anneal="cubic")
    with pytest.raises(ValueError, match="anneal='linear' with length=0"):
        Cycle(remaining=0.5, anneal="linear", length=0)


def test_rates_that_rise_are_named_with_their_cycle() -> None:
    said = r"anneal='cubic' with rates that rise: cycle 3 keeps 0.3 of the edges, and cycle 2 keeps 0.2; give rates"
    with pytest.raises(ValueError, match=said):
        IEP(given=(0.5, 0.2, 0.3), anneal="cubic")


@given(
    st.floats(1e-6, 1.0), st.floats(1e-6, 1.0), st.sampled_from(["linear", "cubic", "exponential"]), st.integers(1, 9)
)
def test_it_comes_down_between_the_two_rates(one: float, other: float, anneal: Any, above: int) -> None:
    """To the bit: an edge more than the cycle before left cannot be had under hard pruning."""
    low, high = sorted((one, other))
    cycle = Cycle(remaining=low, anneal_from=high, anneal=anneal, anneal_epochs=above)
    rates = [cycle.rate(epoch, above + 2) for epoch in range(above + 2)]
    assert all(rate is not None and low <= rate <= high for rate in rates)
    assert rates[0] == pytest.approx(high)
    assert rates[above:] == [low, low]


@pytest.mark.parametrize(("remaining", "before"), [(0.3175610693610734, 0.713), (0.20904817748444354, 0.241)])
def test_rounding_asks_for_no_edge_that_was_pruned(remaining: float, before: float) -> None:
    """Their quotient times the lower rate is above the higher one by a rounding; a layer of 500 has a half there."""
    rate = Cycle(remaining=remaining, anneal_from=before, anneal="exponential").rate(0, 4)
    assert rate is not None
    assert kept_count(rate, 500) <= kept_count(before, 500)


def test_coats_that_are_measured_first_come_down_once() -> None:
    first, second = Multicoated(spacing="linear", coats=2, anneal="linear", anneal_epochs=2).phases()
    assert [first.rate(epoch, 3) for epoch in range(3)] == pytest.approx([1.0, 0.65, 0.3])
    assert [second.rate(epoch, 3) for epoch in range(3)] == [0.3] * 3


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


def test_the_network_s_ranking_comes_down_after_hard_pruning(tmp_path: Path) -> None:
    """Pruning leaves some layer less than its part of the rate, which the next cycle begins with."""
    method = IEP(given=(0.5, 0.2), space="survivors", anneal="cubic", ranking="network")
    recipe(method, tmp_path / "run").execute()
    run = read_run(tmp_path / "run")
    assert any(layer.kept < kept_count(0.5, layer.edges) for layer in run.cycles[0].layers.values())
    edges = run.cycles[0].edges
    assert [cycle.kept for cycle in run.cycles] == [kept_count(0.5, edges), kept_count(0.2, edges)]
    assert run.epochs[EPOCHS].remaining == run.cycles[0].remaining


def test_the_picked_epoch_is_one_of_the_cycle_s_rate(tmp_path: Path) -> None:
    method = EP(remaining=0.02, anneal="linear", anneal_epochs=3)  # the first epochs are the better ones
    recipe(method, tmp_path / "run", validation=Validation(every=1, pick="best")).execute()
    run = read_run(tmp_path / "run")
    assert max(epoch.validation or 0 for epoch in run.epochs) > (run.epochs[-1].validation or 0)
    assert run.cycles[0].picked == EPOCHS
    assert run.cycles[0].remaining == pytest.approx(0.02, abs=2e-3)
