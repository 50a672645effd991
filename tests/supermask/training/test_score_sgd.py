"""ScoreSGD: torch.optim.SGD to the bit, with thresholds that are right whatever happens between steps."""

import copy
import gc
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_pre_hooks

from supermask import ScoreSGD, one_selection, searched_edges, set_remaining
from supermask.edges import rules
from supermask.edges.searched import BY_ITSELF
from supermask.networks.convert import convert
from supermask.networks.small import MLP
from tests.devices import DEVICE


def network(**changes: Any) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), MLP([256, 40, 10])
    )
    return convert(model, seed=5, remaining=0.3, **changes).to(DEVICE)


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    drawn = [
        (torch.randn(8, 3, 8, 8, generator=generator), torch.randint(10, (8,), generator=generator))
        for _ in range(count)
    ]
    return [(x.to(DEVICE), y.to(DEVICE)) for x, y in drawn]


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    scores = [edges.scores for edges in searched_edges(model).values()]
    held = {id(parameter) for parameter in scores}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
    return [{"params": scores, "weight_decay": weight_decay}, *([{"params": others}] if others else [])]


def fused_step(model: nn.Module, optimiser: ScoreSGD, *given: tuple[Tensor, Tensor]) -> None:
    for x, y in given:
        with optimiser.searching():
            F.cross_entropy(model(x), y).backward()
    optimiser.step()
    optimiser.zero_grad()


def plain_step(model: nn.Module, optimiser: torch.optim.Optimizer, *given: tuple[Tensor, Tensor]) -> None:
    for x, y in given:
        F.cross_entropy(model(x), y).backward()
    optimiser.step()
    optimiser.zero_grad()


@pytest.mark.parametrize("kernels", ["native", "torch"])
@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.5, "momentum": 0.9, "weight_decay": 1e-3},
        {"lr": 0.5, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True},
        {"lr": 0.1},
        {"lr": 0.0, "momentum": 0.5},
    ],
)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bias": "train", "norm": "train"},
        {"weights": "kaiming_normal"},
        {"magnitude": "raw", "weights": "unsigned_constant"},
    ],
)
def test_it_takes_the_steps_of_torch(
    kernels: str, settings: dict[str, Any], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPERMASK_KERNELS", kernels)
    ours, theirs = network(**changes), network(**changes)
    own = ScoreSGD(ours, **settings)
    plain = {**settings}
    other = torch.optim.SGD(groups(theirs, plain.pop("weight_decay", 0.0)), **plain)
    for step, batch in enumerate(batches(6)):
        if step == 4:
            for model in (ours, theirs):
                set_remaining(model, 0.1)
                for edges in searched_edges(model).values():
                    edges.remove_unselected()
        fused_step(ours, own, batch)
        plain_step(theirs, other, batch)
        for (name, found), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(found, expected), (step, name)
    for found, expected in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(found, expected)


def test_state_dicts_are_those_of_torch() -> None:
    model, twin = network(), network()
    own = ScoreSGD(model, lr=0.5, momentum=0.9)
    data = batches(4)
    fused_step(model, own, data[0])
    twin.load_state_dict(model.state_dict())
    other = torch.optim.SGD(groups(twin, 0.0), lr=0.5, momentum=0.9)
    other.load_state_dict(copy.deepcopy(own.state_dict()))
    fused_step(model, own, data[1])
    plain_step(twin, other, data[1])
    again = ScoreSGD(twin, lr=0.1, momentum=0.9)
    again.load_state_dict(copy.deepcopy(other.state_dict()))
    fused_step(model, own, data[2])
    fused_step(twin, again, data[2])
    for found, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_gradients_accumulate() -> None:
    ours, theirs = network(), network()
    own, other = ScoreSGD(ours, lr=0.5), torch.optim.SGD(groups(theirs, 0.0), lr=0.5)
    fused_step(ours, own, *batches(3))
    plain_step(theirs, other, *batches(3))
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def selections(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each selection was asked for."""
    asked: list[int] = []
    select = rules.select

    def spy(scores: list[Tensor], *args: Any) -> Any:
        asked.append(len(scores))
        return select(scores, *args)

    monkeypatch.setattr(rules, "select", spy)
    return asked


def test_scores_are_selected_from_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = selections(monkeypatch)
    model = network()
    optimiser = ScoreSGD(model, lr=0.5, momentum=0.9)
    for batch in batches(4):
        fused_step(model, optimiser, batch)
    assert asked == [3]


@pytest.mark.parametrize(
    "meddle", ["scores", "kept", "survivors", "load", "optimiser", "fused optimiser", "vector", "data"]
)
def test_a_known_threshold_is_used_for_its_own_scores_only(meddle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = selections(monkeypatch)
    model = network()
    optimiser = ScoreSGD(model, lr=0.5, momentum=0.9)
    other = torch.optim.SGD(groups(model, 0.0), lr=0.3, fused=meddle.startswith("fused"))
    first, second, third = batches(3)
    fused_step(model, optimiser, first)
    with torch.no_grad():
        for edges in searched_edges(model).values():
            if meddle == "scores":
                edges.scores.mul_(torch.rand(edges.shape, device=DEVICE))
            elif meddle == "kept":
                edges.remaining = 0.05
            elif meddle == "survivors":
                edges.remove_unselected()
        if meddle == "vector":
            numbers = torch.nn.utils.parameters_to_vector(model.parameters())
            torch.nn.utils.vector_to_parameters(numbers * torch.rand(numbers.shape, device=DEVICE), model.parameters())
        elif meddle == "data":
            for parameter in model.parameters():
                parameter.data = parameter * torch.rand(parameter.shape, device=DEVICE)
        elif meddle == "load":
            model.load_state_dict(network().state_dict())
    if "optimiser" in meddle:
        plain_step(model, other, second)
    asked.clear()
    twin = copy.deepcopy(model)
    with optimiser.searching():
        found = model(third[0])
    assert asked == [3]
    assert torch.equal(found, twin(third[0]))


def test_another_optimiser_does_not_step_on_gradients_of_weights() -> None:
    model = network()
    optimiser, other = ScoreSGD(model, lr=0.5), torch.optim.SGD(model.parameters(), lr=0.5)
    before = [parameter.clone() for parameter in model.parameters()]
    (x, y), *_ = batches(1)
    with optimiser.searching():
        F.cross_entropy(model(x), y).backward()
    with pytest.raises(RuntimeError, match="SGD steps over scores whose gradients are those of the weights"):
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    optimiser.zero_grad()
    F.cross_entropy(model(x), y).backward()
    other.step()


def test_gradients_of_two_kinds_do_not_mix() -> None:
    model = network()
    optimiser = ScoreSGD(model, lr=0.5)
    (x, y), *_ = batches(1)
    with optimiser.searching():
        F.cross_entropy(model(x), y).backward()
    with pytest.raises(RuntimeError, match="this backward is outside of it"):
        F.cross_entropy(model(x), y).backward()
    optimiser.zero_grad()
    F.cross_entropy(model(x), y).backward()
    with pytest.raises(RuntimeError, match="outside of searching"), optimiser.searching():
        pass
    optimiser.step()  # as torch's SGD does


def test_outside_of_searching_it_is_the_plain_optimiser() -> None:
    ours, theirs = network(bias="train"), network(bias="train")
    own, other = ScoreSGD(ours, lr=0.5, momentum=0.9), torch.optim.SGD(groups(theirs, 0.0), lr=0.5, momentum=0.9)
    for batch in batches(3):
        with one_selection(ours):
            F.cross_entropy(ours(batch[0]), batch[1]).backward()
        own.step()
        own.zero_grad()
        plain_step(theirs, other, batch)
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_a_closure_and_a_layer_without_gradient() -> None:
    model = network()
    unused = next(iter(searched_edges(model).values())).scores
    unused.requires_grad_(False)
    before = unused.clone()
    optimiser = ScoreSGD(model, lr=0.5, weight_decay=0.1)
    (x, y), *_ = batches(1)

    def closure() -> Tensor:
        with optimiser.searching():
            loss = F.cross_entropy(model(x), y)
            loss.backward()
        return loss

    assert float(optimiser.step(closure)) > 0
    assert torch.equal(unused, before)


def test_a_forgotten_optimiser_leaves_nothing_behind() -> None:
    model = network()
    optimiser = ScoreSGD(model, lr=0.5)
    (x, y), *_ = batches(1)
    with optimiser.searching():
        F.cross_entropy(model(x), y).backward()
    gc.collect()
    count = len(_global_optimizer_pre_hooks)
    del optimiser
    gc.collect()
    assert len(_global_optimizer_pre_hooks) == count - 1


@pytest.mark.parametrize("settings", [{"lr": -1.0}, {"lr": 0.1, "momentum": -0.1}, {"lr": 0.1, "nesterov": True}])
def test_numbers_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"[Ii]nvalid|Nesterov"):
        ScoreSGD(network(), **settings)
    with pytest.raises(ValueError, match="no searched layer"):
        ScoreSGD(nn.Linear(2, 2), lr=0.1)


def test_compiled() -> None:
    ours, theirs = network(), network()
    own, other = ScoreSGD(ours, lr=0.5, momentum=0.9), torch.optim.SGD(groups(theirs, 0.0), lr=0.5, momentum=0.9)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    for batch in batches(3):
        with own.searching():
            F.cross_entropy(compiled(batch[0]), batch[1]).backward()
        own.step()
        own.zero_grad()
        plain_step(theirs, other, batch)
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_write_that_torch_does_not_count_is_noticed() -> None:
    """On the CPU: a GPU would have to be waited for."""
    model = network().cpu()
    optimiser = ScoreSGD(model, lr=0.5)
    first, second = ((x.cpu(), y.cpu()) for x, y in batches(2))
    fused_step(model, optimiser, first)
    for edges in searched_edges(model).values():
        edges.scores.detach().numpy()[:] *= 0.5
    with pytest.raises(RuntimeError, match=r"edges selected where \d+ are kept.*\.data, NumPy"):
        fused_step(model, optimiser, second)


@pytest.mark.parametrize("change", ["remaining", "survivors", "scores"])
def test_nothing_changes_between_gradients_and_step(change: str) -> None:
    model = network(weights="scaled_signed_constant")
    optimiser = ScoreSGD(model, lr=0.5)
    (x, y), *_ = batches(1)
    with optimiser.searching():
        F.cross_entropy(model(x), y).backward()
    before = [parameter.clone() for parameter in model.parameters()]
    with torch.no_grad():
        for edges in searched_edges(model).values():
            if change == "remaining":
                edges.remaining = 0.2
            elif change == "survivors":
                edges.remove_unselected()
    if change == "scores":
        model.load_state_dict(network(weights="scaled_signed_constant").state_dict())
    with pytest.raises(RuntimeError, match="changed between the gradients and their step"):
        optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_block_that_raises_leaves_the_layers_as_they_were() -> None:
    model = network()
    optimiser = ScoreSGD(model, lr=0.5)
    with pytest.raises(KeyError), optimiser.searching():
        raise KeyError
    assert all(edges.selection is BY_ITSELF for edges in searched_edges(model).values())


def test_a_selection_within_searching_leaves_its_gradients_those_of_the_weights() -> None:
    ours, theirs = network(), network()
    own, other = ScoreSGD(ours, lr=0.5), ScoreSGD(theirs, lr=0.5)
    (x, y), *_ = batches(1)
    with own.searching():
        with one_selection(ours), torch.no_grad():
            ours(x)
        F.cross_entropy(ours(x), y).backward()
    own.step()
    fused_step(theirs, other, (x, y))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_gradients_stay_for_whoever_reads_them_after_a_step() -> None:
    model = network(bias="train")
    optimiser = ScoreSGD(model, lr=0.5)
    (x, y), *_ = batches(1)
    with optimiser.searching():
        F.cross_entropy(model(x), y).backward()
    grads = [parameter.grad for parameter in model.parameters()]
    optimiser.step()
    assert all(parameter.grad is grad for parameter, grad in zip(model.parameters(), grads, strict=True))


def test_what_it_does_not_do_is_refused() -> None:
    model = network()
    optimiser = ScoreSGD(model, lr=0.5)
    with pytest.raises(TypeError, match="state_dict"):
        copy.deepcopy(optimiser)
    (x, y), *_ = batches(1)
    for name, value in (("maximize", True), ("dampening", 0.5)):
        state = optimiser.state_dict()
        state["param_groups"][0][name] = value
        other = ScoreSGD(model, lr=0.5)
        other.load_state_dict(state)
        with other.searching():
            F.cross_entropy(model(x), y).backward()
        with pytest.raises(ValueError, match=name):
            other.step()
        other.zero_grad()
    scores = optimiser.param_groups[0]["params"].pop()
    optimiser.add_param_group({"params": [scores], "lr": 0.0})
    with optimiser.searching():
        F.cross_entropy(model(x), y).backward()
    with pytest.raises(ValueError, match="another than the first"):
        optimiser.step()
    layers = list(searched_edges(model).values())
    layers[1].scores = layers[0].scores
    with pytest.raises(ValueError, match="share"):
        ScoreSGD(model, lr=0.1)


def test_a_first_step_keeps_the_sign_of_zeros() -> None:
    ours, theirs = network(), network()
    own = ScoreSGD(ours, lr=0.5, momentum=0.9)
    other = torch.optim.SGD(groups(theirs, 0.0), lr=0.5, momentum=0.9)
    x, y = torch.zeros(2, 3, 8, 8, device=DEVICE), torch.tensor([0, 1], device=DEVICE)
    fused_step(ours, own, (x, y))
    plain_step(theirs, other, (x, y))
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine, plain = own.state[found]["momentum_buffer"], other.state[expected]["momentum_buffer"]
        assert torch.equal(mine.view(torch.int32), plain.view(torch.int32))


def test_gradients_are_stepped_once() -> None:
    model = network()
    optimiser = ScoreSGD(model, lr=0.5)
    (x, y), *_ = batches(1)
    with optimiser.searching():
        F.cross_entropy(model(x), y).backward()
    optimiser.step()
    with pytest.raises(RuntimeError, match="gradients of the last step are still there"), optimiser.searching():
        pass
    with pytest.raises(RuntimeError, match="stepped already: call zero_grad"):
        optimiser.step()
    for parameter in model.parameters():
        parameter.grad = None
    fused_step(model, optimiser, (x, y))
