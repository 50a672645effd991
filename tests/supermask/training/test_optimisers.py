"""The optimisers of Training: each is its rule, of the scores' straight-through gradient, and steps all that is trained
once."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermask import SGDW, ScoreSGD, Training, one_selection, searched_edges
from supermask.training.captured import CapturedStep, capturable
from supermask.training.optimisers import OptimiserName
from tests.devices import DEVICE
from tests.graphs import graphs  # noqa: F401
from tests.supermask.training.test_score_sgd import batches, groups, network

CHANGES: list[dict[str, Any]] = [{}, {"bias": "train", "norm": "train", "magnitude": "raw"}]
NAMES: list[OptimiserName] = ["sgd", "adam", "adamw", "sgdw"]


def step(model: nn.Module, optimiser: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> None:
    with one_selection(model):
        F.cross_entropy(model(batch[0]), batch[1]).backward()
    optimiser.step()
    optimiser.zero_grad()


def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).to(DEVICE)


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_is_torch_s_over_scores_with_the_straight_through_gradient(name: Any, changes: dict[str, Any]) -> None:
    ours, theirs = network(**changes), network(**changes)
    own = Training(lr=0.01, optimiser=name, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1).make_optimiser(ours)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    held = [{"weight_decay": 0.0, **group} for group in groups(theirs, 0.1)]
    other = kind(held, lr=0.01, betas=(0.8, 0.99), eps=1e-6, fused=True)
    for x, y in batches(4):
        step(ours, own, (x, y))
        F.cross_entropy(theirs(x), y).backward()
        other.step()
        other.zero_grad()
    masks = [[edges.mask() for edges in searched_edges(model).values()] for model in (ours, theirs)]
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    assert not torch.equal(next(iter(searched_edges(ours).values())).scores, next(network(**changes).parameters()))


def adamw(w: Tensor, g: Tensor, state: dict[str, Tensor], lr: float, decay: float, t: int) -> Tensor:
    """Loshchilov & Hutter 2019, Algorithm 2, the rate multiplying the decay."""
    m = state["m"] = 0.9 * state.get("m", torch.zeros_like(w)) + 0.1 * g
    v = state["v"] = 0.999 * state.get("v", torch.zeros_like(w)) + 0.001 * g * g
    return w - lr * (m / (1 - 0.9**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-8) + decay * w)


def sgdw(w: Tensor, g: Tensor, state: dict[str, Tensor], lr: float, decay: float, t: int) -> Tensor:
    """Loshchilov & Hutter 2019, Algorithm 1, the rate multiplying the decay."""
    m = state["m"] = 0.9 * state.get("m", torch.zeros_like(w)) + lr * g
    return w - m - lr * decay * w


@pytest.mark.parametrize("rule", [adamw, sgdw])
def test_decoupled_decay_is_the_paper_s_rule_in_float64(rule: Any) -> None:
    """At a rate that changes, of the scores alone: biases and normalisation do not decay."""
    model = network(bias="train", norm="train")
    optimiser = Training(lr=0.1, optimiser=rule.__name__, weight_decay=0.3).make_optimiser(model)
    scores = {id(edges.scores) for edges in searched_edges(model).values()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    expected = [parameter.detach().double() for parameter in trained]
    states: list[dict[str, Tensor]] = [{} for _ in trained]
    for t, (x, y) in enumerate(batches(4), start=1):
        lr = 0.1 / t
        for group in optimiser.param_groups:
            group["lr"] = lr
        with one_selection(model):
            F.cross_entropy(model(x), y).backward()
        for i, parameter in enumerate(trained):
            assert parameter.grad is not None
            decay = 0.3 if id(parameter) in scores else 0.0
            expected[i] = rule(expected[i], parameter.grad.double(), states[i], lr, decay, t)
        optimiser.step()
        optimiser.zero_grad()
    assert len(trained) > len(scores)
    for parameter, value in zip(trained, expected, strict=True):
        torch.testing.assert_close(parameter.detach().double(), value, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("name", NAMES)
def test_dense_training_decays_all_and_a_search_its_scores(name: OptimiserName) -> None:
    training = Training(optimiser=name, weight_decay=0.5, lr=0.1)
    model = dense()
    (group,) = training.make_optimiser(model).param_groups
    assert group["weight_decay"] == 0.5
    assert list(map(id, group["params"])) == list(map(id, model.parameters()))
    searched = network(bias="train", norm="train")
    scores, others = training.make_optimiser(searched).param_groups
    assert (scores["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    assert {id(p) for p in scores["params"]} == {id(edges.scores) for edges in searched_edges(searched).values()}
    assert len(training.make_optimiser(network()).param_groups) == 1


def test_each_name_is_its_class_with_its_settings() -> None:
    model = dense()
    made = {name: Training(optimiser=name).make_optimiser(model) for name in NAMES}
    assert [type(one) for one in made.values()] == [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, SGDW]
    assert type(Training().make_optimiser(network())) is ScoreSGD
    for optimiser in (Training(nesterov=True).make_optimiser(model), Training(nesterov=True).make_optimiser(network())):
        assert optimiser.param_groups[0]["nesterov"] is True
    assert made["adam"].param_groups[0]["fused"] is True


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"optimiser": "Adam"}, "optimiser='Adam': expected one of 'sgd', 'adam'"),
        ({"betas": (0.8, 0.9)}, r"betas=\(0.8, 0.9\) with optimiser='sgd', .* or take 'adam' and 'adamw'"),
        ({"optimiser": "sgdw", "eps": 1e-6}, "eps=1e-06 with optimiser='sgdw', which does not read it"),
        ({"optimiser": "adam", "nesterov": True}, "nesterov=True with optimiser='adam', .* or take 'sgd'"),
        ({"nesterov": True, "momentum": 0.0}, "Nesterov's needs a momentum"),
        ({"optimiser": "adam", "betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\): expected two numbers"),
        ({"optimiser": "adam", "eps": 0.0}, "eps=0.0: expected a positive"),
    ],
)
def test_settings_that_mean_nothing_are_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Training(**bad)


def test_lists_are_the_same_settings_as_tuples() -> None:
    listed: Any = {"betas": [0.8, 0.9], "milestones": [0.25, 0.5]}
    settings: Any = {"optimiser": "adam", "schedule": "step"}
    same = Training(betas=(0.8, 0.9), milestones=(0.25, 0.5), **settings)
    assert Training(**listed, **settings) == same
    assert hash(Training(**listed, **settings)) == hash(same)
    usual: Any = {"betas": [0.9, 0.999], "milestones": [0.5, 0.75]}
    assert Training(**usual) == Training()
    assert repr(Training(**usual)) == repr(Training())


def test_adam_has_a_momentum_that_it_does_not_read() -> None:
    """Recipes set SGD's, and another optimiser is one flag more."""
    assert Training(optimiser="adam", momentum=0.875).momentum == 0.875


def test_an_optimiser_that_is_a_method_is_refused() -> None:
    class Mine(Training):
        def optimiser(self, model: nn.Module) -> Any:  # type: ignore[override]
            return torch.optim.Adam(model.parameters())

    with pytest.raises(TypeError, match=r"Mine.optimiser is a method, .* call it make_optimiser"):
        Mine()


def test_a_class_of_optimisers_is_none() -> None:
    with pytest.raises(TypeError, match=r"optimiser=Adam, a class of optimisers: expected a function .* 'sgd'"):
        Training(optimiser=torch.optim.Adam)


def rmsprop(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    return torch.optim.RMSprop([p for p in model.parameters() if p.requires_grad], lr=training.lr)


def test_one_s_own_is_asked_of_the_network_and_the_training() -> None:
    model = network()
    made = Training(lr=0.25, optimiser=rmsprop).make_optimiser(model)
    assert type(made) is torch.optim.RMSprop
    assert made.param_groups[0]["lr"] == 0.25


def forgets(model: nn.Module, _: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([parameter for name, parameter in model.named_parameters() if name != "2.bias"], lr=0.1)


def doubles(model: nn.Module, _: Any) -> torch.optim.Optimizer:
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    made.param_groups[0]["params"].append(next(model.parameters()))
    return made


def strays(model: nn.Module, _: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([*model.parameters(), nn.Parameter(torch.ones(2))], lr=0.1)


def differs(model: nn.Module, _: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [p], "lr": 0.1 * (1 + p.ndim)} for p in model.parameters()], lr=0.1)


def closes(model: nn.Module, _: Any) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(model.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (lambda model, _: "adam", "gave str: expected a torch.optim.Optimizer"),
        (forgets, r"forgets\(\) gave SGD, which does not step 2.bias: give it all parameters"),
        (doubles, r"doubles\(\) gave SGD, which has 0.weight 2 times"),
        (strays, r"steps 1 tensors that are no parameters of the network"),
        (differs, r"groups of the learning rates \[0.2, 0.3"),
        (closes, r"closes\(\) gave LBFGS, which needs closure for a step, .* step it in the method's `step`"),
    ],
)
def test_one_s_own_that_does_not_step_all_once_is_refused(own: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        Training(optimiser=own).make_optimiser(dense())


def test_what_is_not_trained_may_be_left_out_or_not() -> None:
    model = dense()
    next(model.parameters()).requires_grad_(False)
    Training(optimiser=rmsprop).make_optimiser(model)
    Training(optimiser=lambda model, _: torch.optim.SGD(model.parameters(), lr=0.1)).make_optimiser(model)


@pytest.mark.parametrize("bad", [{"lr": -0.1}, {"momentum": 1.0}, {"weight_decay": -1.0}])
def test_sgdw_refuses_numbers_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))}={next(iter(bad.values()))}"):
        SGDW([nn.Parameter(torch.ones(2))], **{"lr": 0.1, **bad})


def test_sgdw_asks_a_closure_and_leaves_what_has_no_gradient() -> None:
    weight, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimiser = SGDW([weight, other], lr=0.5, momentum=0.0, weight_decay=0.5)

    def closure() -> Tensor:
        loss = weight.sum()
        loss.backward()
        return loss

    assert optimiser.step(closure).item() == 3.0
    assert torch.equal(weight.detach(), torch.full((3,), 0.25))
    assert torch.equal(other.detach(), torch.ones(3))


@pytest.mark.parametrize("name", ["adam", "adamw", "sgdw"])
def test_a_captured_step_is_the_step(name: OptimiserName, graphs: list[int]) -> None:  # noqa: F811
    """With a rate that changes between replays, and by the same kernel: one whose rate is a tensor."""
    ends = []
    for replayed in (False, True):
        model = network(bias="train")
        optimiser = Training(lr=0.1, optimiser=name, weight_decay=0.1).make_optimiser(model)
        capturable(optimiser, DEVICE)

        def take(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
            with one_selection(model):  # noqa: B023
                loss = F.cross_entropy(model(batch[0]), batch[1])  # noqa: B023
                loss.backward()
            optimiser.step()  # noqa: B023
            optimiser.zero_grad(set_to_none=True)  # noqa: B023
            return loss.detach(), None

        way = CapturedStep(take, model, optimiser) if replayed else take
        for number, batch in enumerate(batches(7), start=1):
            for group in optimiser.param_groups:
                group["lr"].fill_(0.1 / number)
            way(batch)
        ends.append(list(model.state_dict().values()))
    assert graphs
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_gradients_of_a_network_laid_out_channels_last_are_stepped_where_they_belong() -> None:
    ends = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).to(DEVICE)
        model = model.to(memory_format=layout)
        optimiser = Training(optimiser="adam", lr=0.01).make_optimiser(model)
        for x, y in batches(3):
            F.cross_entropy(model(x), y).backward()
            optimiser.step()
            optimiser.zero_grad()
        ends.append([parameter.detach() for parameter in model.parameters()])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
