"""What holds of every method of METHODS: exact counts, resuming, tickets, ranks and paths, all to the bit."""

import copy
import random
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from supermask.edges.in_model import searched_edges
from supermask.edges.selection import selected_once
from supermask.kernels.base.bits import count_bits
from supermask.methods import METHODS
from supermask.methods.baselines import RandomMask, Shuffled, Untrained
from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import EP, EPLong
from supermask.methods.iep import IEP
from supermask.methods.iterand import IteRand
from supermask.methods.method import Method
from supermask.methods.multicoated import Multicoated
from supermask.networks.allocation import Allocator
from supermask.networks.convert import convert
from supermask.runs.recipe import Recipe
from supermask.runs.session import Session
from supermask.runs.stages import search
from supermask.tickets.errors import TicketError
from supermask.tickets.load import load
from supermask.tickets.save import save
from supermask.training.loop import Loop
from supermask.training.parallel import ALONE, Group
from supermask.training.training import Training
from tests.kernels.paths import path
from tests.ranks import on_ranks
from tests.supermask.runs.small_runs import (
    BASE,
    RATES,
    Killed,
    Points,
    a_save_every,
    last_state,
    left_by,
    mlp,
    placed,
    same,
    watched,
)

CPU = torch.device("cpu")


# The rates of the small runs, and whatever a method does from time to time done often.
SETTINGS: dict[str, Any] = {
    "given": RATES,
    "remaining": RATES[0],
    "length": 2,
    "every": 3,
    "freeze_every": 1,
    "chance": 0.5,
}


def short(method: Method) -> Method:
    """The method with those of SETTINGS that it has."""
    names = {field.name for field in fields(method)}
    names -= {"length"} if "given" in names or isinstance(method, Untrained) else set()
    return replace(method, **{name: value for name, value in SETTINGS.items() if name in names})


SHORT: dict[str, Method] = {label: short(method) for label, method in METHODS.items()}
SHORT["multicoated, linear"] = short(Multicoated(spacing="linear", coats=2))  # its coats come in a later cycle
SHORT["multicoated soft iEP, equal counts"] = short(Multicoated(cycles=2, final=None, allocate=Allocator(kind="equal")))
SHORT["hard iEP, ERK, annealed"] = short(
    IEP(space="survivors", anneal="cubic", allocate=Allocator(kind="erk", whole=("last",), floor=1))
)
SHORT["hard iEP over the network, annealed"] = short(IEP(space="survivors", anneal="exponential", ranking="network"))
SHORT["shuffled over the network"] = short(Shuffled(ranking="network"))


def recipe(method: Method) -> Recipe:
    return replace(BASE, method=method, stages=None)


def network(method: Method, seed: int = 5) -> nn.Module:
    return convert(mlp(4).build(), seed, remaining=RATES[0], edges=method.edges)


def trained(method: Method, steps: int = 7, ranks: Group = ALONE, *, fused: bool = True) -> nn.Module:
    """The method's network, its first cycle begun, after some steps."""
    model = network(method)
    method.begin(model, method.phases()[0], 1, {})
    training = Training(epochs=1, lr=0.3)
    loaded = Points().open(seed=0, device=CPU)
    loop = Loop(model=model, loaded=loaded, training=training, device=CPU, hooks=method, group=ranks)
    sgd = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-4)
    optimiser = training.make_optimiser(model) if fused else sgd
    while loop.step < steps:
        loop.run_epoch(optimiser, 0.3)
    return model


def ended(method: Method) -> nn.Module:
    """The method's network after some steps, and the cycle without one that its search ends with, if there is one."""
    model, phases = trained(method), method.phases()
    if len(phases) > 1 and not phases[-1].length:
        method.begin(model, phases[-1], len(phases), {})
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    """All that a state dict has, the masks, and the weights that a forward uses."""
    found = dict(model.state_dict())
    with selected_once(model):
        for name, edges in searched_edges(model).items():
            found |= {f"{name}.coats": edges.coats(), f"{name}.w": edges(torch.float32).detach()}
    return found


@pytest.mark.parametrize("label", SHORT)
def test_it_selects_as_many_edges_as_it_promises(label: str) -> None:
    method = SHORT[label]
    for model in (network(method), trained(method)):
        layers = searched_edges(model).values()
        for edges in layers:
            edges.remaining = RATES[0]
        with selected_once(model):
            counts = [[count_bits(coat) for coat in edges.coats()] for edges in layers]
        for edges, of_layer in zip(layers, counts, strict=True):
            if edges.rule.fixed:  # it promises so many
                assert of_layer == edges.rule.counts(edges, RATES[0]) == edges.kept.tolist()
        if any(edges.rule.together for edges in layers):
            assert sum(count for count, *_ in counts) == sum(int(edges.kept[0]) for edges in layers)


@pytest.mark.parametrize("label", SHORT)
def test_killed_and_resumed_it_ends_the_same(label: str, tmp_path: Path) -> None:
    made, draw = recipe(SHORT[label]), random.Random(label)
    with watched() as whole, a_save_every(3):
        result = placed(made, tmp_path / "whole", checkpoint_seconds=3).execute()
    expected = left_by(tmp_path / "whole")
    for kill in range(3):
        moment = draw.randrange(1, whole.passed if kill == 0 else whole.passed // 4)
        with watched(moment), a_save_every(3), suppress(Killed):
            placed(made, tmp_path / "cut", checkpoint_seconds=3, resume=kill > 0).execute()
    resumed = placed(made, tmp_path / "cut", resume=True).execute()
    assert same(left_by(tmp_path / "cut"), expected)
    assert resumed.cycles == result.cycles
    assert resumed.tickets[0].same_logits


@pytest.mark.parametrize("label", SHORT)
def test_its_ticket_is_its_network_to_the_bit(label: str, tmp_path: Path) -> None:
    model = ended(SHORT[label]).eval()
    save(model, tmp_path / "t.safetensors", architecture=mlp(4))
    inputs = torch.randn(9, 20)
    for weights in ("cached", "materialised", "auto", "on_the_fly"):
        if weights == "on_the_fly" and any(edges.real for edges in searched_edges(model).values()):
            with pytest.raises(TicketError, match="use 'materialised'"):
                load(tmp_path / "t.safetensors", weights=weights)
            continue
        loaded = load(tmp_path / "t.safetensors", weights=weights)
        with selected_once(model):
            for layer, edges in searched_edges(model).items():
                for dtype in (torch.float32, torch.bfloat16):
                    assert torch.equal(loaded.get_submodule(layer).edges(dtype), edges(dtype)), (layer, dtype)
            logits = model(inputs)
        if weights in ("cached", "materialised"):
            assert torch.equal(loaded(inputs), logits)
        else:
            torch.testing.assert_close(loaded(inputs), logits)


@pytest.mark.parametrize("label", SHORT)
def test_copies_and_states_are_the_same_network(label: str) -> None:
    """A deep copy, and a state dict in a network that has been to the meta device."""
    model = trained(SHORT[label], steps=2)
    fresh = network(SHORT[label], seed=5).to("meta").to_empty(device="cpu")
    fresh.load_state_dict(model.state_dict())
    expected = state(model)
    for other in (copy.deepcopy(model), fresh):
        assert same(state(other), expected)


@pytest.mark.parametrize("label", SHORT)
def test_interpreted_kernels_search_as_the_cpu_does(label: str) -> None:
    """Through a step of each of the first cycles, which begin on another path than they go on."""
    found = {}
    for name in ("torch", "triton"):
        with path(name):
            found[name] = state(through_cycles(SHORT[label]))
    assert same(found["torch"], found["triton"])


def through_cycles(method: Method) -> nn.Module:
    """The method's network after a step of each of its first two cycles."""
    model = network(method)
    loaded = Points().open(seed=0, device=CPU)
    loop = Loop(model=model, loaded=loaded, training=Training(epochs=1, lr=0.3), device=CPU, hooks=method)
    batches = loaded.train(ALONE.part())
    for number, cycle in enumerate(method.phases()[:2], start=1):
        method.begin(model, cycle, number, {})
        sgd = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-4)
        loop.take_step(sgd, next(batches), partial(selected_once, model))
    return model


def test_two_ranks_hold_the_same_network(tmp_path: Path) -> None:
    on_ranks(_rank, str(tmp_path))
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert one.keys() == SHORT.keys()
    assert same(one, other)


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    ranks = Group(rank=rank, ranks=2, control=dist.new_group(backend="gloo"))
    torch.manual_seed(rank)  # what a method draws from torch's own generator would differ
    found: dict[str, Any] = {}
    for label, method in SHORT.items():
        model = trained(method, 6, ranks)
        ranks.check_masks(model)
        found[label] = {name: value for name, value in state(model).items() if "running" not in name}
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_settings_of_a_method_are_two_experiments() -> None:
    def said(method: Method) -> Any:
        made = replace(BASE, method=method, stages=search(method.phases()))
        return made.to_json(mlp(4), CPU, 1).get("method")

    assert said(EP()) is None, "the stages say all of it"
    assert said(IteRand()) != said(IteRand(every=7))
    assert said(IteRand())["type"] == "supermask.methods.iterand.IteRand"
    for label, method in METHODS.items():
        assert (said(short(method)) is None) == (type(method) in (EP, EPLong, IEP, RandomMask)), label


@dataclass(frozen=True, kw_only=True)
class Begun(IEP):
    """Soft iEP that writes down how cycles begin, and by which optimiser they go on."""

    numbers: list[tuple[int, float | None]] = field(default_factory=list)

    def begin(self, model: nn.Module, cycle: Cycle, number: int, initial: Any) -> None:
        super().begin(model, cycle, number, initial)
        self.numbers.append((number, cycle.remaining))

    def optimiser(self, model: nn.Module, training: Training, cycle: Cycle) -> torch.optim.Optimizer:
        self.numbers.append((0, None))
        return torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad])


def test_each_cycle_is_begun_once_and_has_the_method_s_optimiser(tmp_path: Path) -> None:
    method = Begun(given=RATES)
    placed(recipe(method), tmp_path / "run").execute()
    assert method.numbers == [(1, RATES[0]), (0, None), (2, RATES[1]), (0, None)]
    state = last_state(tmp_path / "run")["optimiser"]
    assert "exp_avg" in next(iter(state["state"].values()))


def test_a_session_s_method_is_the_recipe_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(Session, "end_stage", lambda self, stages: seen.append((self.method, self.loop.hooks)))
    method = SHORT["IteRand"]
    placed(recipe(method), tmp_path / "run").execute()
    assert set(seen) == {(method, method)}
