"""Tables of layers: copied or carried by launches they hold the same, and every piece of work finds its layer."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from supermask.kernels.base import table
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from supermask.kernels.select.op import select
from tests.devices import DEVICE, On, home
from tests.kernels.cases import theta_of
from tests.kernels.paths import guarded, path, random_reals, random_words

NUMBERS = st.sampled_from([0, 1, 16, -1, 2**31, 2**32, 2**47 + 16, -(2**63), 2**63 - 1]) | st.integers(
    -(2**63), 2**63 - 1
)


@settings(max_examples=20)
@given(numbers=st.lists(NUMBERS, max_size=2 * table.CARRIED + 1), fields=st.sampled_from([1, 3]))
def test_numbers_are_carried_as_they_are_copied(numbers: list[int], fields: int) -> None:
    rows = np.array([numbers] * fields, np.int64).T
    with guarded():
        copied = table.on_device(rows, DEVICE)
        carried = table.carried(rows, DEVICE)
    assert copied.tolist() == rows.flatten().tolist()
    assert torch.equal(carried, copied)


@settings(max_examples=20)
@given(counts=st.lists(st.sampled_from([0, 1, 3, 4, 5, 9]), max_size=5), fields=st.sampled_from([1, 3]))
def test_every_piece_finds_its_layer(counts: list[int], fields: int) -> None:
    before, pieces = table.dealt(np.array(counts, np.int64))
    assert (before.tolist(), pieces) == ([sum(counts[:layer]) for layer in range(len(counts))], sum(counts))
    rows = np.full((len(counts), fields), -7, np.int64)
    rows[:, fields - 1] = before
    with guarded():
        found = table.spread(torch.from_numpy(rows.flatten()).to(DEVICE), pieces, field=fields - 1, fields=fields)
    assert found.tolist() == np.repeat(np.arange(len(counts)), counts).tolist()


def results(on: On) -> list[Tensor]:
    """What a selection of three layers gives, and two steps of them."""
    shapes = [(3, 130), (1, 1), (5, 301)]
    scores = [random_reals(shape, seed) for seed, shape in enumerate(shapes)]
    kept = torch.tensor([100, 1, 7])
    survivors = [None, None, random_words(5, 301, 9)]
    grads = [random_reals(shape, 7 + seed) for seed, shape in enumerate(shapes)]
    thetas = [theta_of(*shape, source) for shape, source in zip(shapes, ("seed", "signs", "seed"), strict=True)]
    momenta = [torch.full_like(each, -0.0) for each in scores]
    brackets = torch.tensor([NO_BRACKET] * 3, dtype=torch.int32)
    given = scores, grads, momenta, survivors, thetas, kept, brackets
    scores, grads, momenta, survivors, thetas, kept, brackets = on(given)
    found: list[Any] = [*select(scores, kept, survivors)]
    for _ in range(2):
        step = {"lr": 2.0**-7, "momentum": 0.5, "weight_decay": 2.0**-13}
        found += score_step(scores, grads, momenta, survivors, thetas, kept, brackets, **step)
    return home([*found, *scores, *momenta])


def test_captured_calls_give_what_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with path("torch") as on:
        plain = results(on)
    carried: list[int] = []
    unwatched = table.carried

    def watched(rows: Any, device: torch.device) -> Tensor:
        carried.append(rows.size)
        return unwatched(rows, device)

    monkeypatch.setattr(table, "capturing", lambda device: True)
    monkeypatch.setattr(table, "carried", watched)
    with path("triton") as on:
        captured = results(on)
    assert len(carried) == 3, "of the selection and of each step"
    assert all(torch.equal(one, other) for one, other in zip(plain, captured, strict=True))
