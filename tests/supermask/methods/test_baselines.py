"""Masks that no step was taken for: what they are, what is recorded of them, and how they come back."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from supermask.data.digits import Digits
from supermask.edges.draws import shuffled
from supermask.edges.in_model import searched_edges
from supermask.edges.selection import one_selection
from supermask.kernels.base.bits import unpack
from supermask.methods.baselines import InitialMagnitude, RandomMask, Shuffled
from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import EP, EPLong
from supermask.methods.iep import IEP
from supermask.methods.method import Method
from supermask.methods.multicoated import Multicoated
from supermask.methods.rates import Searching
from supermask.networks.allocation import Allocator
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.networks.rates import set_remaining
from supermask.runs.options import RunOptions
from supermask.runs.read import RunRecord, read_masks, read_run
from supermask.runs.recipe import Recipe
from supermask.tickets.load import load
from supermask.training.training import Training


@dataclass(frozen=True, kw_only=True, repr=False)
class Own(Searching):
    """One of a user's, without cycles of its own."""


SEED = 5
FIRST = [18, 26, 16, 257, 259, 195, 220, 54]  # of the edges of a layer of 9 x 33


def network(classes: int) -> Architecture:
    return Architecture(name="mlp", arguments={"sizes": [64, 24, classes]})


def executed(method: Method, folder: Path) -> RunRecord:
    Recipe(
        name="baseline",
        data=Digits(),
        network=network,
        training=Training(epochs=1, lr=0.3),
        method=method,
        run=RunOptions(folder=folder, device="cpu", quiet=True, seed=SEED),
    ).execute()
    return read_run(folder)


def masks_of(run: RunRecord, cycle: int) -> dict[str, torch.Tensor]:
    found = read_masks(run.masks[cycle])
    return {name: unpack(bits, found.cols[name]) for name, bits in found.bits.items()}


def test_a_random_mask_is_what_edge_popup_begins_with(tmp_path: Path) -> None:
    run = executed(RandomMask(remaining=0.2), tmp_path / "run")
    (cycle,) = run.cycles
    assert (cycle.loss, cycle.train_accuracy, run.epochs) == (None, None, ())
    assert cycle.dying == pytest.approx(1 - cycle.remaining)  # d of the mask alone
    assert cycle.recalibrated is not None
    begun = convert(network(10).build(), SEED, remaining=0.2)
    for name, edges in searched_edges(begun).items():
        assert torch.equal(masks_of(run, 1)[name], unpack(edges.mask(), edges.cols))
    assert run.tickets[0].same_logits
    assert run.tickets[0].accuracy == cycle.recalibrated
    assert run.finished


def test_a_shuffled_mask_keeps_counts_and_no_place(tmp_path: Path) -> None:
    method = Shuffled(cycles=2, final=0.1, space="survivors", allocate=Allocator(kind="erk"))
    run = executed(method, tmp_path / "run")
    found, shuffled = masks_of(run, 2), masks_of(run, 3)
    assert [cycle.loss is None for cycle in run.cycles] == [False, False, True]
    for name in found:
        assert found[name].sum() == shuffled[name].sum()
        common = int((found[name] & shuffled[name]).sum())
        expected = int(found[name].sum()) ** 2 / found[name].numel()
        assert abs(common - expected) < 5 * expected**0.5
    again = executed(method, tmp_path / "again")
    assert all(torch.equal(masks_of(again, 3)[name], shuffled[name]) for name in shuffled)


def test_the_initial_magnitude_keeps_the_largest_weights(tmp_path: Path) -> None:
    method = InitialMagnitude(remaining=0.25)
    run = executed(method, tmp_path / "run")
    ticket = load(tmp_path / "run" / "ticket.safetensors", weights="cached")
    full = convert(network(10).build(), SEED, remaining=1.0, weights="kaiming_normal")
    with one_selection(full), torch.no_grad():
        for name, edges in searched_edges(full).items():
            weight = edges().flatten()
            chosen = torch.zeros_like(weight, dtype=torch.bool)
            chosen[weight.abs().sort(descending=True, stable=True).indices[: round(0.25 * edges.count)]] = True
            assert torch.equal(masks_of(run, 1)[name].flatten().bool(), chosen)
            made = ticket.get_submodule(name).weight.flatten()
            assert torch.equal(made, torch.where(chosen, weight, 0))


def test_constants_have_no_magnitude() -> None:
    with pytest.raises(ValueError, match=r"weights='signed_constant' all have one magnitude: choose 'kaiming_normal'"):
        convert(network(10).build(), 1, edges=InitialMagnitude().edges, weights="signed_constant")


@pytest.mark.parametrize("method", [EP(length=0), RandomMask()])
def test_a_cycle_without_epochs_has_no_rates(method: Any) -> None:
    (cycle,) = method.phases()
    assert cycle.epochs(10) == 0
    assert method.schedule(Training(epochs=3), cycle, None) == []


def test_a_mask_without_a_step_has_no_length() -> None:
    with pytest.raises(ValueError, match="length=2: RandomMask takes no step; EP takes some"):
        RandomMask(length=2)


def test_edges_are_shuffled_by_the_seed_and_the_layer_alone() -> None:
    def order(seed: int, layer: int) -> torch.Tensor:
        torch.manual_seed(seed + layer)  # which is not asked
        return shuffled(seed, layer, 9, 33, device=torch.device("cpu"))

    assert torch.equal(order(5, 0).sort().values, torch.arange(9 * 33))
    assert order(5, 0)[:8].tolist() == FIRST
    assert not torch.equal(order(5, 0), order(5, 1))
    assert not torch.equal(order(5, 0), order(6, 0))


def test_one_ranking_takes_no_allocation() -> None:
    with pytest.raises(
        ValueError, match=r"allocate=Allocator\(floor=1.0\) with ranking='network'.*choose one of the two"
    ):
        EP(ranking="network", allocate=Allocator(floor=1.0))


@pytest.mark.parametrize("method", [EP, EPLong, IEP, Shuffled, Multicoated, InitialMagnitude, Own])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ranking": "bogus"}, "ranking='bogus'"),
        ({"anneal": "bogus"}, "anneal='bogus': expected one of"),
        ({"anneal_epochs": 3}, "anneal_epochs=3 with anneal='none'"),
        ({"allocate": "erk"}, r"allocate='erk': expected an Allocator, such as Allocator\(kind='erk'\)"),
        ({"ranking": "network", "allocate": Allocator(kind="erk")}, "ranking='network'"),
    ],
)
def test_settings_of_every_search_are_looked_at_where_it_is_made(method: Any, changes: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        method(**changes)


@pytest.mark.parametrize("method", [EPLong, IEP, Shuffled, Multicoated])
def test_cycles_are_looked_at_where_a_search_is_made(method: Any) -> None:
    with pytest.raises(ValueError, match="anneal_epochs=0: expected at least one"):
        method(anneal="cubic", anneal_epochs=0)


def test_an_allocation_of_layers_that_are_ranked_together_is_refused() -> None:
    edges = EP(ranking="network").edges
    with pytest.raises(ValueError, match=r"allocate=Allocator\(kind='equal'\) with ranking='network'"):
        convert(network(10).build(), 0, remaining=0.3, allocate=Allocator(kind="equal"), edges=edges)
    model = convert(network(10).build(), 0, remaining=0.3, edges=edges)
    with pytest.raises(ValueError, match=r"allocate=Allocator\(whole=\('last',\)\) with ranking='network'"):
        set_remaining(model, 0.2, Allocator(whole=("last",)))


def test_a_cycle_has_no_negative_length() -> None:
    with pytest.raises(ValueError, match="length=-1: expected how often"):
        replace(Cycle(remaining=0.5), length=-1)


def test_initial_magnitude_is_a_magnitude() -> None:
    net = Architecture(name="mlp", arguments={"sizes": [40, 30, 4]}).build()
    with pytest.raises(ValueError, match="magnitude='raw': scores are the initial weights, so edges rank by 'abs'"):
        convert(net, SEED, remaining=0.1, magnitude="raw", edges=InitialMagnitude(remaining=0.1).edges)


def test_shuffling_comes_after_the_last_cycle_also_where_none_takes_a_step() -> None:
    method = Shuffled(given=(0.5, 0.3), length=0)
    net = convert(Architecture(name="mlp", arguments={"sizes": [40, 30, 4]}).build(), SEED, edges=method.edges)
    layers = list(searched_edges(net).values())
    masks, rates = [], []
    for number, cycle in enumerate(method.phases(), start=1):
        method.begin(net, cycle, number, {})
        with one_selection(net):
            masks.append([unpack(edges.mask(), edges.cols) for edges in layers])
        rates.append([edges.remaining for edges in layers])
    assert rates == [[0.5, 0.5], [0.3, 0.3], [0.3, 0.3]]
    assert all(bool((few <= many).all()) for few, many in zip(masks[1], masks[0], strict=True)), "no other places"
    assert any(not torch.equal(last, before) for last, before in zip(masks[2], masks[1], strict=True))
    assert [int(mask.sum()) for mask in masks[2]] == [int(mask.sum()) for mask in masks[1]]
