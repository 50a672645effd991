"""The bracket of the selection on CPU: whatever the sample says, the threshold is that of a stable sort."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from supermask.kernels.base.bits import pack
from supermask.kernels.base.keys import NAN_KEY, REMOVED_KEY, keys_of, score_keys
from supermask.kernels.select import cpu as threshold_cpu
from supermask.kernels.select.cpu import select_layer
from supermask.kernels.select.op import select
from tests.kernels.select.test_op import VALUES, Layer, layers, oracle

KEYS = st.integers(-(2**31), 2**31 - 1)
ROWS, COLS = 130, 577  # just enough edges for a bracket, of a sample at stride 4
ARRAYS = {
    **VALUES,
    "sorted": lambda rng, n: np.sort(rng.random(n)),
    "reversed": lambda rng, n: -np.sort(-rng.random(n)),
}


@pytest.fixture
def small() -> Iterator[None]:
    """Layers of a test's size take several blocks and a bracket. These sizes, and the brackets below, are private: they
    change no result, so none but tests look at them."""
    with mock.patch.multiple(threshold_cpu, _BLOCK=100, _SAMPLE=8):
        yield


@pytest.fixture
def brackets() -> Iterator[mock.Mock]:
    """The passes over the scores, by their brackets."""
    original = threshold_cpu._Layer.between
    with mock.patch.object(threshold_cpu._Layer, "between", autospec=True, side_effect=original) as passes:
        yield passes


def check(scores: Tensor, kept: int, alive: Tensor | None, absolute: bool) -> None:
    _, tau, last_tied = oracle(scores, kept, alive, absolute)
    assert select_layer(scores, [kept], None if alive is None else pack(alive), absolute) == [(tau, last_tied)]


@pytest.mark.usefixtures("small")
@given(layer=layers(), absolute=st.booleans())
@settings(max_examples=300)
def test_a_small_sample_brackets(layer: Layer, absolute: bool) -> None:
    check(*layer.make(), absolute)


@pytest.mark.usefixtures("small")
@given(layer=layers(), absolute=st.booleans(), low=KEYS, high=KEYS, pick=st.integers(0, 700))
@settings(max_examples=300)
def test_a_wrong_bracket_costs_a_pass_and_nothing_else(
    layer: Layer, absolute: bool, low: int, high: int, pick: int
) -> None:
    """Any two keys for a bracket, in any order, one of them also one that occurs."""
    scores, kept, alive = layer.make()
    occurs = int(score_keys(scores, absolute).view(-1)[pick % layer.edges])
    for bracket in ((low, high), (occurs, high), (low, occurs), (occurs, occurs), (REMOVED_KEY, REMOVED_KEY)):
        with mock.patch.object(threshold_cpu._Layer, "brackets", return_value=[bracket]):
            check(scores, kept, alive, absolute)


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("alive", [None, 0.3, 0.0])
@pytest.mark.parametrize("values", ARRAYS)
def test_layers_large_enough_for_a_bracket(values: str, alive: float | None, absolute: bool) -> None:
    rng = np.random.default_rng(1)
    scores = torch.from_numpy(ARRAYS[values](rng, ROWS * COLS).astype(np.float32)).view(ROWS, COLS)
    survivors = None if alive is None else torch.from_numpy(rng.random((ROWS, COLS)) < alive)
    for kept in (1, 2, 700, ROWS * COLS // 4, ROWS * COLS - 1, ROWS * COLS):
        check(scores, kept, survivors, absolute)


def test_random_scores_are_bracketed_at_once(brackets: mock.Mock) -> None:
    scores = torch.randn(ROWS, COLS, generator=torch.Generator().manual_seed(0))
    check(scores, ROWS * COLS // 3, None, True)
    assert brackets.call_count == 1
    ((_, inside),) = threshold_cpu._Layer.between(*brackets.call_args.args)
    assert inside.size < ROWS * COLS / 10


@pytest.mark.parametrize(("shift", "kept"), [(10.0, ROWS * COLS // 2), (-10.0, ROWS * COLS // 2), (-10.0, 1)])
def test_scores_with_the_period_of_the_sample_are_found_all_the_same(
    shift: float, kept: int, brackets: mock.Mock
) -> None:
    """All that is sampled is above tau, or all below: tau is not in the bracket, and a second pass finds it."""
    scores = torch.rand(ROWS * COLS, generator=torch.Generator().manual_seed(0))
    scores[::4] += shift
    scores = scores.view(ROWS, COLS)
    assert (threshold_cpu._Layer(scores, None, False).sample() > 0).all() == (shift > 0), "the sample is not fooled"
    check(scores, kept, None, False)
    assert brackets.call_count == (2 if kept > 1 else 1)


def test_the_sample_meets_every_column_alike() -> None:
    """Though edges over sample size divides the row: a stride along columns alone would see a few of them."""
    scores = torch.arange(512.0).repeat(512, 1)
    sample = threshold_cpu._Layer(scores, None, True).sample()
    counts = np.unique(sample, return_counts=True)[1]
    assert counts.size == 512
    assert counts.max() - counts.min() <= 1


def test_removed_edges_are_removed_from_the_sample() -> None:
    alive = torch.rand(ROWS, COLS, generator=torch.Generator().manual_seed(0)) < 0.5
    scores = torch.where(alive, 1.0, 2.0)
    sample = threshold_cpu._Layer(scores, pack(alive), True).sample()
    assert set(sample.tolist()) == {REMOVED_KEY, int(score_keys(torch.ones(1, 1), True))}


@pytest.mark.parametrize("absolute", [True, False])
@given(bits=st.lists(KEYS, min_size=1, max_size=50))
def test_keys_are_those_of_the_plain_statement(bits: list[int], absolute: bool) -> None:
    scores = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    found = keys_of(scores.numpy(), absolute, out=np.full(len(bits), 7, np.int32))
    assert torch.equal(torch.from_numpy(found), score_keys(scores, absolute))


def test_fewer_survivors_than_kept_select_every_one() -> None:
    scores = torch.full((ROWS, COLS), torch.nan)
    alive = torch.zeros(ROWS, COLS, dtype=torch.bool)
    alive[3, 5] = True
    tau, last_tied = select([scores, scores], torch.tensor([1, 2]), [pack(alive), pack(alive)])
    assert tau.tolist() == [NAN_KEY, NAN_KEY]
    assert last_tied.tolist() == [ROWS * COLS - 1, ROWS * COLS - 1]


def test_scores_that_change_under_the_selection_are_an_error_and_not_a_mask() -> None:
    scores = torch.zeros(10, 10)
    original: Any = threshold_cpu._Layer.between  # private, and all that lies between two passes over the scores

    def then_change(*args: Any) -> Any:
        found = original(*args)
        scores.fill_(1.0)
        return found

    with mock.patch.object(threshold_cpu._Layer, "between", then_change), pytest.raises(RuntimeError, match="changed"):
        select_layer(scores, [50], None, True)
