"""Signed supermasks: what a score's size and sign do, its gradient, and what a ticket holds."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from supermask.checks import SearchWarning
from supermask.edges.in_model import searched_edges
from supermask.edges.stored import Stored
from supermask.kernels.base.bits import unpack
from supermask.kernels.base.philox import sign_words
from supermask.methods.signed import ELUS, Signed, SignedEdges
from supermask.networks.convert import convert
from supermask.training.loop import Loop
from supermask.training.sgdw import SGDW
from supermask.training.training import Training
from tests.supermask.runs.small_runs import Points

CPU = torch.device("cpu")


def edges_of(shape: tuple[int, ...] = (24, 30), method: Signed = Signed(), **given: Any) -> SignedEdges:
    edges = method.edges(shape, **{"seed": 3, "layer": 1, "remaining": 0.5, **given})
    assert isinstance(edges, SignedEdges)
    return edges


def drawn(edges: SignedEdges) -> Tensor:
    """W, before a score turns it."""
    negative = unpack(super(SignedEdges, edges).theta().words(edges.rows, edges.cols), edges.cols)
    size = torch.tensor(math.sqrt(2 / edges.cols)) * torch.tensor(ELUS)
    return torch.where(negative, -size, size)


@pytest.mark.parametrize("shape", [(24, 30), (6, 5, 3, 3)])
def test_a_score_s_size_selects_and_its_sign_turns(shape: tuple[int, ...]) -> None:
    """The rule by hand: m = sign(s) [|s| > tau], w = W m, tau a share of the largest initial |s|."""
    edges = edges_of(shape)
    scores = edges.scores.detach()
    bound = math.sqrt(6 / (edges.cols + shape[0] * math.prod(shape[2:])))
    assert 0.97 * bound < float(scores.abs().max()) <= bound
    assert torch.equal(edges.tau, scores.abs().max().view(1) * 0.4)
    matrix = scores.view(edges.rows, edges.cols)
    mask = matrix.sign() * (matrix.abs() > edges.tau)
    assert torch.equal(edges(torch.float32).detach().view_as(matrix), drawn(edges) * mask)
    assert torch.equal(unpack(edges.mask(), edges.cols), mask != 0)
    assert float(edges.theta().constant) == pytest.approx(math.sqrt(3 / edges.cols), rel=1e-6)
    assert edges_of((300, 200)).remaining == pytest.approx(0.6, abs=0.01)


def test_turning_all_scores_turns_all_weights() -> None:
    edges = edges_of()
    before = edges(torch.float32).detach()
    with torch.no_grad():
        edges.scores.neg_()
    assert torch.equal(edges(torch.float32), -before)


def test_a_score_at_the_threshold_is_off() -> None:
    edges = edges_of((1, 4))
    tau = float(edges.tau)
    above = float(torch.nextafter(edges.tau, torch.tensor([math.inf])))
    with torch.no_grad():
        edges.scores.copy_(torch.tensor([[tau, -tau, above, -above]]))
    assert unpack(edges.mask(), 4).tolist() == [[False, False, True, True]]


def test_the_gradient_is_that_of_the_weight_whatever_the_mask_is() -> None:
    """A code that reuses edge-popup's rule would turn it by the score's sign."""
    edges = edges_of((1, 3))
    tau = float(edges.tau)
    with torch.no_grad():
        edges.scores.copy_(torch.tensor([[2 * tau, 0.5 * tau, -2 * tau]]))
    grad = torch.tensor([[0.7, 0.7, 0.7]])
    edges(torch.float32).backward(grad)
    assert edges.scores.grad is not None
    assert torch.equal(edges.scores.grad, grad * drawn(edges))


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense = nn.Sequential(nn.Linear(20, 60), nn.ELU(), nn.Linear(60, 4))
    return convert(dense, seed, remaining=0.5, edges=Signed().edges)


def test_the_threshold_stays_and_decay_thins_the_mask() -> None:
    model = network()
    layers = [edges for edges in searched_edges(model).values() if isinstance(edges, SignedEdges)]
    before = [(edges.tau.clone(), edges.remaining) for edges in layers]
    training = Training(epochs=2, lr=0.005, optimiser="sgdw", weight_decay=20.0)
    loop = Loop(model=model, loaded=Points().open(seed=0, device=CPU), training=training, device=CPU, hooks=Signed())
    optimiser = training.make_optimiser(model)
    for _ in range(2):
        loop.run_epoch(optimiser, training.lr)
    for edges, (tau, remaining) in zip(layers, before, strict=True):
        assert torch.equal(edges.tau, tau)
        assert edges.remaining < 0.8 * remaining


def test_without_a_gradient_scores_shrink_by_the_decay_alone() -> None:
    """Decoupled: by 1 - lr * weight_decay a step, momentum or not."""
    edges = edges_of()
    before = edges.scores.detach().clone()
    optimiser = SGDW([edges.scores], lr=0.005, momentum=0.9, weight_decay=0.06)
    for _ in range(3):
        edges.scores.grad = torch.zeros_like(edges.scores)
        optimiser.step()
    torch.testing.assert_close(edges.scores.detach(), before * (1 - 0.0003) ** 3)


def test_what_is_stored_turns_selected_signs_alone() -> None:
    edges = edges_of()
    edges.draw_weights(edges.mask(), 1)  # signs that are not the seed's, as IteRand leaves them
    found = edges.stored()
    assert isinstance(found, Stored)
    assert float(edges.theta().constant) == found.values["constant"]
    mask, flips = (unpack(found.planes[name], edges.cols) for name in ("mask", "flips"))
    assert bool((flips <= mask).all())
    own = torch.where(unpack(sign_words(3, 1, 24, 30), 30), -1.0, 1.0)
    made = torch.where(flips, -own, own) * found.values["constant"] * mask
    assert torch.equal(made, edges(torch.float32))


def test_state_dicts_hold_the_threshold(tmp_path: Path) -> None:
    one, other = edges_of(), edges_of(method=Signed(share=0.1))
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(torch.float32), one(torch.float32))
    with pytest.raises(RuntimeError, match="the state dict is of edges with"):
        edges_of(method=Signed(gain=1.0)).load_state_dict(one.state_dict())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"length": 0}, "length=0: expected how often"),
        ({"share": 1.0}, "share=1.0: expected a part"),
        ({"share": -0.1}, "share=-0.1: expected a part"),
        ({"gain": 0.0}, "gain=0.0: expected a positive"),
        ({"gain": math.nan}, "gain=nan: expected a positive"),
    ],
)
def test_what_is_out_of_range_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Signed(**given)


@pytest.mark.parametrize(("name", "warns"), [("sgd", True), ("adam", True), ("sgdw", False), ("adamw", False)])
def test_decay_that_is_not_decoupled_is_told_of(name: Any, warns: bool) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        Signed().optimiser(network(), Training(optimiser=name), Signed().phases()[0])
    assert [one.category for one in found if "decoupled" in str(one.message)] == [SearchWarning] * warns


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"weights": "scaled_signed_constant"}, "follow a rate, and Signed has none"),
        ({"pinned": True}, "a layer with a rate of its own, 0.5: Signed selects at no fixed rate"),
        ({"weights": "kaiming_normal"}, "weights='kaiming_normal' have no sign that a ticket could turn"),
        ({"magnitude": "raw"}, "magnitude='raw': a score's sign turns its weight"),
    ],
)
def test_what_it_cannot_turn_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Signed().edges((2, 3), seed=0, remaining=0.5, **given)
