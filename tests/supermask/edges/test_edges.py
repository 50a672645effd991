"""The edges of a layer: rates, draws from the seed, hard pruning, selection of all layers at once."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from supermask.edges import searched as searched_module
from supermask.edges import selection
from supermask.edges.draws import kept_count, weight_constant
from supermask.edges.in_model import all_edges, searched_edges, set_remaining
from supermask.edges.packed import PackedEdges
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import one_selection
from supermask.kernels.base import philox
from supermask.kernels.base.bits import pack, unpack
from supermask.networks.layers import SupermaskConv2d, SupermaskConvTranspose2d, SupermaskLinear

KINDS = ["signed_constant", "scaled_signed_constant", "unsigned_constant", "kaiming_normal", "kaiming_uniform"]


def chosen(edges: SearchedEdges) -> Tensor:
    return unpack(edges.mask(), edges.cols)


def oracle(edges: SearchedEdges) -> Tensor:
    scores = edges.scores.detach().flatten()
    order = torch.sort(scores.abs() if edges.magnitude == "abs" else scores, descending=True, stable=True).indices
    mask = torch.zeros(edges.count, dtype=torch.bool)
    return mask.index_fill_(0, order[: int(edges.kept)], True).view(edges.rows, edges.cols)


@given(n=st.integers(1, 10**7), rate=st.floats(0, 1, exclude_min=True))
def test_kept_count(n: int, rate: float) -> None:
    kept = kept_count(rate, n)
    assert kept == max(1, round(rate * n))
    assert 1 <= kept <= n


@pytest.mark.parametrize(
    ("rate", "n", "kept"),
    [(0.1, 10, 1), (0.9, 10, 9), (0.5, 5, 2), (0.5, 7, 4), (0.04, 10, 1), (0.3, 101, 30), (1.0, 3, 3), (1e-30, 9, 1)],
)
def test_kept_count_by_hand(rate: float, n: int, kept: int) -> None:
    assert kept_count(rate, n) == kept
    edges = SearchedEdges((1, n), seed=0, remaining=rate)
    assert int(edges.kept) == kept
    assert int(chosen(edges).sum()) == kept
    assert edges.remaining == kept / n


@given(
    rows=st.integers(1, 40),
    cols=st.sampled_from([1, 3, 31, 33, 127, 128, 129]),
    rates=st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=4),
    magnitude=st.sampled_from(["abs", "raw"]),
    ties=st.booleans(),
)
def test_the_mask_is_that_of_a_sort_at_every_rate(
    rows: int, cols: int, rates: list[float], magnitude: Any, ties: bool
) -> None:
    edges = SearchedEdges((rows, cols), seed=1, magnitude=magnitude)
    if ties:
        with torch.no_grad():
            edges.scores.mul_(3 * math.sqrt(cols)).round_()
    for rate in rates:
        edges.remaining = rate
        assert edges.remaining == kept_count(rate, rows * cols) / (rows * cols)
        assert torch.equal(chosen(edges), oracle(edges))
        assert torch.equal(edges(torch.float32) != 0, oracle(edges).view(edges.shape))


@pytest.mark.parametrize("rate", [0, -0.5, 1.0001, math.inf, math.nan])
def test_a_refused_rate_changes_nothing(rate: float) -> None:
    edges = SearchedEdges((4, 100), seed=0, remaining=0.25, weights="scaled_signed_constant")
    before = edges(torch.float32)
    with pytest.raises(ValueError, match=f"remaining={rate}"):
        edges.remaining = rate
    assert edges.remaining == 0.25
    assert torch.equal(edges(torch.float32), before)


def test_signs_of_the_design_example() -> None:
    """Seed 0x0123456789abcdef, layer 3, row 5, cols 128 to 255, generation 0."""
    words = (0xC44ECAA8, 0xCB535223, 0x76BCB759, 0xB48FD465)
    minus = torch.tensor([word >> bit & 1 for word in words for bit in range(32)], dtype=torch.bool)
    layer = SupermaskConv2d(32, 7, 3, seed=0x0123456789ABCDEF, layer=3, remaining=1.0)
    weight = layer.weight.detach().view(7, 288)
    assert torch.equal(weight[5, 128:256] < 0, minus)
    other = SupermaskConv2d(32, 7, 3, seed=0x0123456789ABCDEF, layer=2, remaining=1.0).weight.detach()
    assert not torch.equal(other.view(7, 288)[5, 128:256] < 0, minus)


@pytest.mark.parametrize("rate", [0.03, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(64, 48), (32, 16, 3, 3), (40, 5, 7)])
def test_constant_weights(shape: tuple[int, ...], rate: float) -> None:
    fan_in = math.prod(shape[1:])
    n = shape[0] * fan_in
    kept = round(rate * n)
    sigma = torch.tensor(math.sqrt(2 / fan_in))
    found = {}
    for kind in ("signed_constant", "scaled_signed_constant", "unsigned_constant"):
        weight = SearchedEdges(shape, seed=5, remaining=rate, weights=kind)(torch.float32).detach()
        found[kind] = weight[weight != 0]
        assert len(found[kind]) == kept
    scaled = torch.tensor(math.sqrt(2 / (fan_in * (kept / n))))
    assert torch.equal(found["signed_constant"].abs(), sigma.expand(kept))
    assert torch.equal(found["unsigned_constant"], sigma.expand(kept))
    assert torch.equal(found["scaled_signed_constant"].abs(), scaled.expand(kept))
    assert torch.equal(found["scaled_signed_constant"] < 0, found["signed_constant"] < 0)
    minus = int((found["signed_constant"] < 0).sum())
    assert abs(minus - kept / 2) < 5 * math.sqrt(kept) / 2


def test_scaled_constant_follows_the_rate() -> None:
    edges = SearchedEdges((10, 100), seed=0, remaining=0.5, weights="scaled_signed_constant")
    for rate in (0.5, 0.2, 0.08):
        edges.remaining = rate
        weight = edges(torch.float32).detach()
        assert torch.equal(weight.abs().max(), torch.tensor(math.sqrt(2 / (100 * rate))))
    assert weight_constant("scaled_signed_constant", 100, 0.08) == math.sqrt(2 / (100 * 0.08))
    assert weight_constant("signed_constant", 100, 0.08) == math.sqrt(2 / 100)


def test_fan_in_of_a_transposed_convolution_is_torchs() -> None:
    layer = SupermaskConvTranspose2d(6, 8, 3, seed=0, remaining=1.0)
    fan_in, _ = nn.init._calculate_fan_in_and_fan_out(nn.ConvTranspose2d(6, 8, 3).weight)
    assert torch.equal(layer.weight.abs().max(), torch.tensor(math.sqrt(2 / fan_in)))


def moments(x: Tensor) -> tuple[float, float, float]:
    """Mean, variance and kurtosis."""
    x = x.detach().double().flatten()
    return x.mean().item(), x.var().item(), (x**4).mean().item() / x.var().item() ** 2


def within(found: float, expected: float, standard_error: float) -> bool:
    return abs(found - expected) < 5 * standard_error


def check_normal(x: Tensor, std: float) -> None:
    mean, variance, kurtosis = moments(x)
    n = x.numel()
    assert within(mean, 0, std / math.sqrt(n))
    assert within(variance, std**2, std**2 * math.sqrt(2 / n))
    assert within(kurtosis, 3, math.sqrt(96 / n))


def check_uniform(x: Tensor, bound: float) -> None:
    mean, variance, kurtosis = moments(x)
    n, std = x.numel(), bound / math.sqrt(3)
    assert x.min() >= torch.tensor(-bound)
    assert x.max() <= torch.tensor(bound)
    assert x.max() > (1 - 20 / n) * bound
    assert x.min() < -(1 - 20 / n) * bound
    assert within(mean, 0, std / math.sqrt(n))
    assert within(variance, std**2, std**2 * math.sqrt(0.8 / n))
    assert within(kurtosis, 1.8, math.sqrt(2 / n))


@pytest.mark.parametrize("shape", [(256, 150), (64, 64, 3, 3)])
def test_real_valued_weights_and_scores(shape: tuple[int, ...]) -> None:
    fan_in = math.prod(shape[1:])
    std = math.sqrt(2 / fan_in)

    def edges(**search: Any) -> SearchedEdges:
        return SearchedEdges(shape, seed=9, remaining=1.0, **search)

    normal, uniform = edges(weights="kaiming_normal"), edges(weights="kaiming_uniform", scores="kaiming_normal")
    check_normal(normal(torch.float32), std)
    check_uniform(uniform(torch.float32), math.sqrt(3) * std)
    check_uniform(normal.scores, 1 / math.sqrt(fan_in))
    check_normal(uniform.scores, std)
    for each in (normal, uniform):  # weights and scores come from streams of their own
        both = torch.stack([each(torch.float32).flatten(), each.scores.flatten()]).detach()
        assert within(torch.corrcoef(both)[0, 1].item(), 0, 1 / math.sqrt(each.count))
    signs = edges()(torch.float32).flatten() < 0
    assert within((normal.scores.flatten() < 0).eq(signs).double().mean().item(), 0.5, 0.5 / math.sqrt(normal.count))


@pytest.mark.parametrize("weights", ["kaiming_normal", "kaiming_uniform"])
def test_real_valued_weights_do_not_depend_on_the_rate(weights: Any) -> None:
    edges = SearchedEdges((20, 30), seed=9, remaining=1.0, weights=weights)
    whole = edges(torch.float32).detach()
    edges.remaining = 0.2
    assert torch.equal(edges(torch.float32), torch.where(chosen(edges), whole, 0))


@pytest.mark.parametrize("weights", [kind for kind in KINDS if kind != "unsigned_constant"])
def test_weights_are_functions_of_seed_and_layer(weights: Any) -> None:
    places = [(0, 0), (1, 0), (2**63, 0), (0, 1), (2**32, 0)]

    def weight(seed: int, layer: int) -> Tensor:
        return SearchedEdges((8, 33), seed=seed, layer=layer, weights=weights, remaining=1.0)(torch.float32).detach()

    made = {place: weight(*place) for place in places}
    for place, values in made.items():
        assert torch.equal(values, weight(*place))
        assert sum(torch.equal(values, other) for other in made.values()) == 1


def test_draws_are_functions_of_seed_layer_and_generation() -> None:
    def scores(seed: int = 0, layer: int = 0, generation: int = 0, kind: Any = "kaiming_uniform") -> Tensor:
        edges = SearchedEdges((8, 33), seed=seed, layer=layer, scores=kind)
        edges.draw_scores(generation)
        return edges.scores.detach().clone()

    for kind in ("kaiming_uniform", "kaiming_normal"):
        places = [(0, 0, 0), (1, 0, 0), (2**63, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2), (2**32, 0, 0)]
        drawn = {place: scores(*place, kind) for place in places}
        for place, values in drawn.items():
            assert torch.equal(values, scores(*place, kind))
            assert sum(torch.equal(values, other) for other in drawn.values()) == 1
    edges = SearchedEdges((8, 33), seed=0)
    assert torch.equal(edges.scores, scores())
    weight, parameter = edges(torch.float32), edges.scores
    edges.draw_scores(3)
    assert edges.scores is parameter
    assert not torch.equal(edges(torch.float32), weight)
    edges.draw_scores()
    assert torch.equal(edges(torch.float32), weight)


def test_a_draw_depends_on_position_alone() -> None:
    """A longer row begins as a shorter one does, so that a reader in another language can draw any edge alone."""
    short = SearchedEdges((8, 33), seed=0).scores.detach() * math.sqrt(33)
    long = SearchedEdges((9, 130), seed=0).scores.detach() * math.sqrt(130)
    torch.testing.assert_close(short, long[:8, :33], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("magnitude", ["abs", "raw"])
@pytest.mark.parametrize("weights", ["signed_constant", "kaiming_normal"])
def test_hard_pruning_nests_masks_and_stops_gradients(weights: Any, magnitude: Any) -> None:
    layer = SupermaskLinear(67, 9, seed=0, remaining=1.0, weights=weights, magnitude=magnitude)
    edges = layer.edges
    generator = torch.Generator().manual_seed(0)
    before = chosen(edges)
    for rate in (0.6, 0.3, 0.3, 0.05):
        edges.remaining = rate
        with torch.no_grad():
            edges.scores.copy_(torch.randn(edges.shape, generator=generator))
        mask = chosen(edges)
        assert int(mask.sum()) == round(rate * 603)
        assert not (mask & ~before).any()
        edges.scores.grad = None
        layer(torch.randn(5, 67, generator=generator)).square().sum().backward()
        assert torch.equal(edges.scores.grad != 0, before)
        edges.remove_unselected()
        assert torch.equal(unpack(edges.survivors, 67), mask)
        assert torch.equal(chosen(edges), mask)
        before = mask


def test_an_edge_of_score_zero_can_move() -> None:
    """Zero init of soft pruning would be hard pruning if the gradient of |s| at 0 were 0, as torch has it."""
    layer = SupermaskLinear(30, 8, seed=0, remaining=0.5)
    edges, theta = layer.edges, SupermaskLinear(30, 8, seed=0, remaining=1.0).weight.detach()
    zeroed = ~chosen(edges)
    with torch.no_grad():
        edges.scores[zeroed] = 0.0
        edges.scores[0] *= -1  # some zeros are negative ones
    assert torch.equal(~chosen(edges), zeroed)
    weight = layer.weight.detach().requires_grad_()
    x = torch.randn(16, 30)
    layer(x).square().sum().backward()
    (x @ weight.t()).square().sum().backward()
    assert torch.equal(edges.scores.grad[zeroed], (weight.grad * theta)[zeroed])
    assert bool((edges.scores.grad[zeroed] != 0).all())
    torch.optim.SGD([edges.scores], 10.0).step()
    assert bool((chosen(edges) & zeroed).any())


def test_removed_edges_need_the_survivors_given_back() -> None:
    edges = SearchedEdges((10, 10), seed=0, remaining=0.4, weights="scaled_signed_constant")
    edges.remove_unselected()
    edges.remaining = 0.4
    before = edges(torch.float32)
    with pytest.raises(ValueError, match=r"remaining=0.41 keeps 41 of 100 edges.*left 40.*survivors = None"):
        edges.remaining = 0.41
    assert edges.remaining == 0.4
    assert torch.equal(edges(torch.float32), before)
    edges.survivors = None
    edges.remaining = 0.9
    assert int(chosen(edges).sum()) == 90


class Branches(nn.Module):
    """Layers of both magnitudes, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a = SupermaskLinear(12, 12, seed=0, layer=0, remaining=0.3)
        self.b = SupermaskLinear(12, 12, seed=0, layer=1, remaining=0.6, magnitude="raw")
        self.c = SupermaskConv2d(2, 3, 3, seed=0, layer=2, remaining=0.1)
        self.d = SupermaskConv2d(2, 3, 3, seed=0, layer=3, remaining=0.9, magnitude="raw")
        self.c.edges.remove_unselected()
        self.c.edges.remaining = 0.05
        with torch.no_grad():
            self.c.edges.scores.copy_(self.c.edges.scores.flip(0))  # removed edges among the highest scores
            self.d.edges.scores.mul_(10).round_()  # ties at the threshold

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(torch.relu(self.a(self.a(x)))).view(-1, 2, 6, 1).expand(-1, -1, -1, 6)
        return torch.cat([self.c(x), self.d(x)])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Layers of each call of `select`."""
    made: list[int] = []
    select = searched_module.select

    def counted(scores: Any, *args: Any) -> Any:
        made.append(len(scores))
        return select(scores, *args)

    monkeypatch.setattr(searched_module, "select", counted)
    monkeypatch.setattr(selection, "select", counted)
    return made


def test_one_selection_is_the_selection_of_each_layer(calls: list[int]) -> None:
    model = Branches()
    x = torch.randn(4, 12)
    expected = model(x)
    expected.square().sum().backward()
    grads = {name: edges.scores.grad.clone() for name, edges in searched_edges(model).items()}
    masks = {name: edges.mask() for name, edges in searched_edges(model).items()}
    model.zero_grad()
    calls.clear()
    with one_selection(model):
        out = model(x)
        out.square().sum().backward()
        inside = {name: edges.mask() for name, edges in searched_edges(model).items()}
    assert sorted(calls) == [2, 2]
    assert torch.equal(out, expected)
    for name, edges in searched_edges(model).items():
        assert torch.equal(inside[name], masks[name])
        assert torch.equal(edges.scores.grad, grads[name])
        assert int(chosen(edges).sum()) == int(edges.kept)


CHANGES: dict[str, Any] = {
    "scores": lambda edges: edges.scores.detach().zero_(),
    "one score": lambda edges: edges.scores.detach()[0, 0].add_(1.0),
    "draw": lambda edges: edges.draw_scores(1),
    "remaining": lambda edges: setattr(edges, "remaining", 0.05),
    "survivors": lambda edges: edges.remove_unselected(),
    "kept": lambda edges: edges.kept.sub_(1),
    "another parameter": lambda edges: setattr(edges, "scores", nn.Parameter(edges.scores.detach().flip(0))),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_one_selection_refuses_changes(change: str, name: str) -> None:
    model = Branches()

    def run() -> None:
        with one_selection(model):
            model(torch.randn(4, 12)).sum().backward()
            CHANGES[change](model.get_submodule(name).edges)

    with pytest.raises(RuntimeError, match="one_selection"):
        run()
    check_fresh(model)


@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}, {"fused": True}])
def test_one_selection_refuses_a_step_inside(options: dict[str, bool]) -> None:
    model = Branches()
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, **options)
    unrelated = torch.optim.SGD([torch.zeros(2, requires_grad=True)], 0.1)

    def run(inside: torch.optim.Optimizer) -> None:
        with one_selection(model):
            model(torch.randn(4, 12)).sum().backward()
            inside.step()

    run(unrelated)
    optimiser.step()
    with pytest.raises(RuntimeError, match="close the block before a step"):
        run(optimiser)
    check_fresh(model)
    optimiser.step()


def test_one_selection_ends_with_an_exception() -> None:
    model = Branches()

    def run() -> None:
        with one_selection(model):
            CHANGES["scores"](model.a.edges)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    check_fresh(model)


def check_fresh(model: Branches) -> None:
    """No layer remembers a threshold."""
    for name, edges in searched_edges(model).items():
        edges.survivors = None
        edges.draw_scores(7)
        edges.remaining = 0.2
        assert torch.equal(chosen(edges), oracle(edges)), name
        assert torch.equal(edges(torch.float32) != 0, oracle(edges).view(edges.shape))


def test_one_selection_needs_searched_layers() -> None:
    message = r"Linear has no searched layer.*supermask\.convert"
    with pytest.raises(ValueError, match=message), one_selection(nn.Linear(2, 2)):
        pass


def test_ever_collects_the_masks_of_training_forwards_only() -> None:
    layer = SupermaskLinear(40, 7, seed=0, remaining=0.3)
    edges = layer.edges
    x = torch.randn(2, 40)
    layer(x)
    assert edges.ever is None
    before = pack(torch.zeros(7, 40, dtype=torch.bool))
    edges.ever = before.clone()

    layer.eval()
    layer(x)
    edges.mask()
    edges.threshold()
    assert torch.equal(edges.ever, before)
    layer.train()
    edges.mask()
    with torch.no_grad():
        assert torch.equal(layer.weight, edges(torch.float32, record=False))
    assert torch.equal(edges.ever, before)

    seen = torch.zeros(7, 40, dtype=torch.bool)
    for generation in range(3):
        edges.draw_scores(generation)
        seen |= chosen(edges)
        with torch.set_grad_enabled(generation != 1):
            layer(x)
        assert torch.equal(unpack(edges.ever, 40), seen)
    assert int(seen.sum()) > 84 + 40
    layer.eval()
    edges.draw_scores(3)
    layer(x)
    assert torch.equal(unpack(edges.ever, 40), seen)
    assert "edges.ever" not in layer.state_dict()


def test_edges_are_found_by_the_name_of_their_layer() -> None:
    model = nn.ModuleDict({"x": Branches(), "edges": SupermaskLinear(3, 3, seed=0)})
    assert list(all_edges(model)) == ["x.a", "x.b", "x.c", "x.d", "edges"]
    assert list(all_edges(SupermaskLinear(3, 3, seed=0))) == [""]
    frozen = PackedEdges(
        (3, 3), pack(torch.eye(3, dtype=torch.bool)), seed=0, layer=0, weights="signed_constant", constant=1.0
    )
    model["y"] = SupermaskLinear(3, 3, edges=frozen)
    assert list(searched_edges(model)) == ["x.a", "x.b", "x.c", "x.d", "edges"]
    assert all_edges(model)["y"] is frozen


def test_a_copy_made_inside_one_selection_selects_for_itself() -> None:
    model = Branches()
    with one_selection(model):
        twin = copy.deepcopy(model)
    with torch.no_grad():
        for edges in searched_edges(twin).values():
            edges.scores.mul_(-2).add_(0.01)
            assert int(chosen(edges).sum()) == int(edges.kept)


def test_a_state_dict_that_lies_about_kept_or_survivors_is_refused() -> None:
    edges = SearchedEdges((4, 16), seed=0)
    edges.remove_unselected()
    before = edges.survivors.clone()
    for name, value, says in (
        ("kept", torch.tensor([65]), "kept is 65"),
        ("kept", torch.tensor([0]), "kept is 0"),
        ("survivors", torch.zeros(4, 8, dtype=torch.int32), r"\(4, 8\): expected \(4, 4\)"),
    ):
        with pytest.raises(RuntimeError, match=says):
            edges.load_state_dict(edges.state_dict() | {name: value})
        assert torch.equal(edges.survivors, before)
    edges.load_state_dict({}, strict=False)
    assert torch.equal(edges.survivors, before)


@pytest.mark.parametrize("layer", [-1, 2**31])
def test_a_layer_index_outside_the_counter_is_refused(layer: int) -> None:
    with pytest.raises(ValueError, match=f"layer {layer}"):
        SearchedEdges((4, 16), seed=0, layer=layer)


@pytest.mark.parametrize("wrong", ["source", "scores"])
def test_a_refused_state_dict_leaves_the_search_space(wrong: str) -> None:
    edges = SearchedEdges((4, 16), seed=0, remaining=0.5)
    edges.remove_unselected()
    before = edges.survivors.clone()
    other = SearchedEdges((4, 16), seed=1 if wrong == "source" else 0, remaining=0.25)
    other.remove_unselected()
    state = other.state_dict()
    if wrong == "scores":
        state["scores"] = torch.zeros(4, 15)
    with pytest.raises(RuntimeError, match=wrong):
        edges.load_state_dict(state)
    assert torch.equal(edges.survivors, before)
    unpruned = SearchedEdges((4, 16), seed=0)
    with pytest.raises(RuntimeError, match=wrong):
        unpruned.load_state_dict(state)
    assert unpruned.survivors is None


@pytest.mark.parametrize("weights", ["kaiming_normal", "kaiming_uniform"])
def test_real_valued_weights_are_the_draw_of_purpose_one(weights: Any) -> None:
    edges = SearchedEdges((5, 18), seed=2**63 + 9, layer=4, remaining=1.0, weights=weights)
    place, std = (2**63 + 9, 4, 5, 18), math.sqrt(2 / 18)
    if weights == "kaiming_normal":
        drawn = philox.normal(*place, std=std, purpose=1)
    else:
        drawn = philox.uniform(*place, low=-math.sqrt(3) * std, high=math.sqrt(3) * std, purpose=1)
    assert torch.equal(edges(torch.float32), drawn)


def test_a_rate_that_one_layer_refuses_changes_none() -> None:
    model = nn.Sequential(SupermaskLinear(20, 10, seed=0), SupermaskLinear(10, 10, seed=0, layer=1))
    list(searched_edges(model).values())[-1].remove_unselected()
    before = [int(edges.kept) for edges in searched_edges(model).values()]
    with pytest.raises(ValueError, match="hard pruning left"):
        set_remaining(model, 0.9)
    assert [int(edges.kept) for edges in searched_edges(model).values()] == before
