"""IteRand: when weights are drawn again, which, and that nothing else moves."""

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from supermask.edges.draws import chosen
from supermask.edges.in_model import searched_edges
from supermask.kernels.base.bits import count_bits, unpack
from supermask.kernels.base.philox import sign_words
from supermask.methods.edge_popup import EP
from supermask.methods.iterand import IteRand
from supermask.networks.convert import convert
from supermask.runs.options import Conversion, RecipeError
from supermask.runs.stages import Export, search
from supermask.tickets.errors import TicketError
from supermask.tickets.load import inspect
from supermask.tickets.save import save
from supermask.training.hooks import Hooks
from supermask.training.loop import Loop
from supermask.training.training import Training
from tests.supermask.runs.small_runs import BASE, Killed, Points, a_save_every, left_by, placed, same, watched

CPU = torch.device("cpu")
WIDE = IteRand(remaining=0.4, every=300)


def network(method: IteRand | EP = WIDE, seed: int = 0, **given: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        dense = nn.Sequential(nn.Linear(20, 120), nn.BatchNorm1d(120), nn.ReLU(), nn.Linear(120, 4))
    return convert(dense, seed, remaining=method.remaining, edges=method.edges, **given)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """theta0 of each layer, all edges."""
    return {
        name: edges.theta().where(torch.ones(edges.rows, edges.cols, dtype=torch.bool), torch.float32)
        if edges.real is None
        else edges.theta().made(edges.rows, edges.cols, CPU).base.clone()
        for name, edges in searched_edges(model).items()
    }


def masks(model: nn.Module) -> dict[str, Tensor]:
    return {name: unpack(edges.mask(), edges.cols) for name, edges in searched_edges(model).items()}


def train(model: nn.Module, hooks: Hooks, steps: int, first: int = 0) -> None:
    """Steps `first`, ... of a search."""
    training = Training(epochs=1, lr=0.1)
    loop = Loop(model=model, loaded=Points().open(seed=0, device=CPU), training=training, device=CPU, hooks=hooks)
    loop.step = first
    optimiser = training.make_optimiser(model)
    while loop.step < first + steps:
        for batch in loop.loaded.train(loop.group.part(loop.epoch, 0)):
            if loop.step < first + steps:
                loop.take_step(optimiser, batch, optimiser.searching)
        loop.epoch += 1


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(values, other[name]) for name, values in one.items())


@pytest.mark.parametrize("init", ["signed_constant", "scaled_signed_constant", "kaiming_uniform", "kaiming_normal"])
def test_an_event_changes_no_selected_weight_and_not_the_logits(init: Any) -> None:
    model = network(weights=init).eval()
    inputs = torch.randn(8, 20)
    before, selected, logits = weights(model), masks(model), model(inputs)
    for event in (1, 2):
        WIDE.before_step(model, 300 * event - 1)
    after = weights(model)
    assert all(torch.equal(before[name][selected[name]], after[name][selected[name]]) for name in before)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(model(inputs), logits)
    if "constant" in init:
        assert all(torch.equal(before[name].abs(), after[name].abs()) for name in before)


@pytest.mark.parametrize(("init", "share"), [("signed_constant", 0.05), ("kaiming_uniform", 0.1)])
def test_the_share_of_unselected_weights_that_an_event_changes(init: Any, share: float) -> None:
    model = network(weights=init)
    for event in (1, 2, 3):
        before = weights(model)
        WIDE.before_step(model, 300 * event - 1)
        unselected = {name: ~mask for name, mask in masks(model).items()}
        changed = sum(int((before[name] != after)[unselected[name]].sum()) for name, after in weights(model).items())
        count = sum(int(mask.sum()) for mask in unselected.values())
        assert abs(changed - share * count) < 3 * math.sqrt(share * (1 - share) * count)


def test_with_no_chance_it_is_edge_popup_over_raw_scores() -> None:
    plain, never = network(EP(remaining=0.4), scores="kaiming_uniform_relu", magnitude="raw"), network()
    train(plain, Hooks(), 7)
    train(never, replace(WIDE, chance=0.0, every=2), 7)
    for name, edges in searched_edges(never).items():
        other = searched_edges(plain)[name]
        assert torch.equal(edges.scores, other.scores)
        assert torch.equal(edges(torch.float32), other(torch.float32))


@pytest.mark.parametrize("every", [1, 3, 300])
def test_events_are_before_every_so_many_steps_and_the_first_before_that_step(every: int) -> None:
    model, method = network(), replace(WIDE, every=every)
    changed = []
    for step in range(2 * every + 1):
        before = weights(model)
        method.before_step(model, step)
        if any(not torch.equal(before[name], after) for name, after in weights(model).items()):
            changed.append(step)
    assert changed == [step for step in range(2 * every + 1) if (step + 1) % every == 0]


def test_an_event_goes_by_the_scores_as_they_are_and_draws_by_seed_and_event_alone() -> None:
    model = network(seed=7)
    train(model, replace(WIDE, every=5), 5)
    edges = searched_edges(model)["3"]
    torch.manual_seed(1)
    again = network(seed=7)
    train(again, Hooks(), 4)
    replace(WIDE, every=5).before_step(again, 4)
    other = searched_edges(again)["3"]
    place = 7, edges.layer, edges.rows, edges.cols
    hit = chosen(*place, 0.1, generation=1, device=CPU) & ~other.mask()
    turned = (sign_words(*place) ^ sign_words(*place, generation=1)) & hit
    assert edges.flips is not None
    assert other.flips is not None
    assert torch.equal(other.flips, turned)
    assert torch.equal(edges.flips, turned), "drawn after 4 updates of the scores, and not moved by the fifth"


@given(seed=st.integers(0, 2**64 - 1), hits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4))
def test_a_sign_is_that_of_the_last_draw_that_hit_its_edge(seed: int, hits: list[int]) -> None:
    (edges,) = searched_edges(convert(nn.Sequential(nn.Linear(37, 5)), seed, edges=WIDE.edges)).values()
    place = seed, edges.layer, edges.rows, edges.cols
    expected = sign_words(*place)
    for generation, draw in enumerate(hits, start=1):
        where = chosen(draw, 0, edges.rows, edges.cols, 0.5, generation=0, device=CPU)
        edges.draw_weights(where, generation)
        expected = (expected & ~where) | (sign_words(*place, generation=generation) & where)
    assert edges.signs is not None
    assert torch.equal(edges.signs, expected)


def test_each_event_has_draws_of_its_own() -> None:
    model = network(seed=9)
    for event in (1, 2, 3):
        WIDE.before_step(model, 300 * event - 1)
    for edges in searched_edges(model).values():
        place = 9, edges.layer, edges.rows, edges.cols
        expected = sign_words(*place)
        for event in (1, 2, 3):
            hit = chosen(*place, 0.1, generation=event, device=CPU) & ~edges.mask()
            expected = (expected & ~hit) | (sign_words(*place, generation=event) & hit)
        assert edges.signs is not None
        assert torch.equal(edges.signs, expected)


def test_signs_are_made_for_flips_that_a_state_brings() -> None:
    model, fresh = network(), network()
    WIDE.before_step(model, 299)
    for edges in searched_edges(fresh).values():
        edges.signs = None  # as where the kernels draw the seed's own
    fresh.load_state_dict(model.state_dict())
    assert equal(weights(fresh), weights(model))
    assert torch.equal(fresh(torch.ones(2, 20)), model(torch.ones(2, 20)))


@pytest.mark.parametrize("init", ["signed_constant", "kaiming_normal"])
def test_a_state_dict_between_two_events_brings_the_weights(init: Any) -> None:
    model, fresh = network(weights=init), network(weights=init)
    WIDE.before_step(model, 299)
    fresh.load_state_dict(model.state_dict())
    assert equal(weights(fresh), weights(model))
    assert not equal(weights(fresh), weights(network(weights=init)))
    fresh.load_state_dict(network(weights=init).state_dict())
    assert equal(weights(fresh), weights(network(weights=init))), "a state without draws takes them back"
    WIDE.before_step(model, 599)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(torch.ones(2, 20)), model(torch.ones(2, 20)))


def test_a_raw_score_below_zero_falls_where_its_weight_does_harm() -> None:
    (edges,) = searched_edges(convert(nn.Sequential(nn.Linear(6, 3)), 0, edges=WIDE.edges)).values()
    with torch.no_grad():
        edges.scores.fill_(-1.0)
    theta = edges.theta().where(torch.ones(3, 6, dtype=torch.bool), torch.float32)
    edges(torch.float32).backward(theta.sign())  # dL/dw * theta0 > 0 for every edge
    assert edges.scores.grad is not None
    assert (edges.scores.grad > 0).all(), "so that a step of descent lowers the score"


@pytest.mark.parametrize(("field", "value"), [("every", 0), ("chance", -0.1), ("chance", 1.5)])
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field}={value}"):
        IteRand(**{field: value})


def test_weights_without_a_sign_are_not_drawn_again() -> None:
    with pytest.raises(ValueError, match="no sign to draw again"):
        WIDE.before_step(network(weights="unsigned_constant"), 299)


def test_scores_are_drawn_over_the_width_of_the_paper() -> None:
    (edges,) = searched_edges(convert(nn.Sequential(nn.Linear(500, 40)), 0, edges=WIDE.edges)).values()
    bound = math.sqrt(6 / 500)
    assert 0.99 * bound < float(edges.scores.detach().abs().max()) <= bound
    assert count_bits(edges.mask()) == round(0.5 * 20000)
    assert not edges.rule.absolute


def test_a_ticket_keeps_turned_signs_and_refuses_real_weights_that_were_drawn_again(tmp_path: Path) -> None:
    model = network()
    WIDE.before_step(model, 299)
    save(model, tmp_path / "t.safetensors", architecture=None)
    flips = {layer.name: layer.planes["flips"].kept for layer in inspect(tmp_path / "t.safetensors").layers}
    for name, edges in searched_edges(model).items():
        assert edges.flips is not None
        assert flips[name] == count_bits(edges.flips & edges.mask())
    real = network(weights="kaiming_normal")
    save(real, tmp_path / "real.safetensors", architecture=None)
    WIDE.before_step(real, 299)
    with pytest.raises(TicketError, match="drawn again one by one"):
        save(real, tmp_path / "real.safetensors", architecture=None)


def test_compiled_weights_follow_the_draws() -> None:
    (edges,) = searched_edges(convert(nn.Sequential(nn.Linear(37, 5)), 0, remaining=0.3, edges=WIDE.edges)).values()
    made = torch.compile(lambda: edges(torch.float32), backend="aot_eager", fullgraph=True)
    for event in (0, 1, 2):
        if event:
            edges.draw_weights(~edges.mask() & edges.flips.new_full(edges.flips.shape, -1), event)
        assert torch.equal(made(), edges(torch.float32))


@pytest.mark.parametrize("init", ["signed_constant", "kaiming_normal"])
def test_killed_between_two_events_it_goes_on_to_the_same_end(init: Any, tmp_path: Path) -> None:
    method = IteRand(remaining=0.5, every=4, chance=0.5)
    made = replace(BASE, method=method, stages=search(method.phases()), conversion=Conversion(weights=init))
    with watched() as whole, a_save_every(1):
        placed(made, tmp_path / "whole", checkpoint_seconds=1).execute()
    steps = [place for place, name in enumerate(whole.names, start=1) if name == "after Loop.take_step"]
    for kill, step in enumerate((5, 4)):  # of ten; the second run goes on after the fifth
        with watched(steps[step] + 1), a_save_every(1), suppress(Killed):
            placed(made, tmp_path / "cut", checkpoint_seconds=1, resume=kill > 0).execute()
    placed(made, tmp_path / "cut", resume=True).execute()
    assert same(left_by(tmp_path / "cut"), left_by(tmp_path / "whole"))


def test_in_a_run_an_event_changes_no_logit_of_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    method, seen = replace(WIDE, every=3), []
    plain = IteRand.before_step

    def before_step(self: IteRand, model: nn.Module, step: int) -> None:
        inputs = torch.ones(4, 20)
        model.eval()
        before, turned = model(inputs), weights(model)
        plain(self, model, step)
        seen.append((torch.equal(model(inputs), before), equal(weights(model), turned)))
        model.train()

    monkeypatch.setattr(IteRand, "before_step", before_step)
    train(network(method), method, 7)
    assert seen == [(True, step not in (2, 5)) for step in range(7)]


def test_a_run_whose_ticket_cannot_hold_its_weights_is_refused_at_its_begin(tmp_path: Path) -> None:
    method = IteRand(remaining=0.5)
    stages = (*search(method.phases()), Export())
    made = replace(BASE, method=method, stages=stages, conversion=Conversion(weights="kaiming_normal"))
    with pytest.raises(RecipeError, match="which no ticket holds"):
        placed(made, tmp_path / "run").execute()
    assert not (tmp_path / "run").exists()
