"""One selection for all layers of a network."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from supermask.edges import rules
from supermask.edges.in_model import all_edges, searched_edges
from supermask.edges.packed import PackedEdges
from supermask.edges.rules import TopKept
from supermask.edges.selection import one_selection
from supermask.kernels.base.bits import pack
from supermask.networks.layers import SupermaskConv2d, SupermaskLinear
from tests.supermask.edges.chosen_edges import chosen, oracle


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
    select = rules.select

    def counted(scores: Any, *args: Any) -> Any:
        made.append(len(scores))
        return select(scores, *args)

    monkeypatch.setattr(rules, "select", counted)
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


def test_a_block_within_another_goes_by_its_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = (SupermaskLinear(9, 7, seed=0, remaining=0.5), SupermaskLinear(7, 3, seed=0, layer=1, remaining=0.5))
    model = nn.Sequential(*layers)
    calls: list[int] = []
    found = TopKept.found
    monkeypatch.setattr(TopKept, "found", lambda self, layers: calls.append(len(layers)) or found(self, layers))
    with one_selection(model):
        around = [edges.mask() for edges in searched_edges(model).values()]
        with one_selection(model):
            assert all(map(torch.equal, around, (edges.mask() for edges in searched_edges(model).values())))
    assert calls == [2]
