"""Several coats of a layer are several selections of its scores, on every path, to the bit."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from supermask.kernels.base.keys import NAN_KEY, Threshold
from supermask.kernels.base.launch import launcher
from supermask.kernels.select import cpu as threshold_cpu
from supermask.kernels.select.cpu import select_layer
from supermask.kernels.select.op import reference, select, selected
from tests.devices import On, home
from tests.kernels.paths import COMPILED, PATHS, every_path, guarded, pack_plain, path, random_mask, random_reals
from tests.kernels.select.test_op import TILE, Layer, layers

RATES = st.lists(st.sampled_from([0.0, 0.03, 0.3, 0.5, 0.9, 1.0]) | st.floats(0, 1), min_size=1, max_size=5)
KEYS = st.integers(-(2**31), 2**31 - 1)


def counts_of(edges: int, rates: list[float]) -> list[int]:
    """A count a coat, from the widest; coats may be equal."""
    return sorted((max(1, round(rate * edges)) for rate in rates), reverse=True)


def made(call: list[Layer], rates: list[float]) -> tuple[list[Tensor], Tensor, list[Tensor | None]]:
    drawn = [layer.make() for layer in call]
    kept = torch.tensor([counts_of(layer.edges, rates) for layer in call])
    return [s for s, _, _ in drawn], kept, [None if alive is None else pack_plain(alive) for _, _, alive in drawn]


def equal(found: Threshold, expected: Threshold) -> bool:
    assert (found.tau.dtype, found.last_tied.dtype) == (torch.int32, torch.int64)
    return torch.equal(found.tau, expected.tau) and torch.equal(found.last_tied, expected.last_tied)


@settings(max_examples=15)
@given(call=st.lists(layers(), min_size=1, max_size=3), rates=RATES, absolute=st.booleans())
def test_every_path_gives_what_sorting_does(call: list[Layer], rates: list[float], absolute: bool) -> None:
    scores, kept, survivors = made(call, rates)
    expected = reference(scores, kept, survivors, absolute)
    for found in every_path(lambda on: select(*on((scores, kept, survivors)), absolute)):
        assert equal(found, expected)


@settings(max_examples=60)
@given(layer=layers(), rates=RATES, absolute=st.booleans())
def test_each_coat_is_a_selection_of_its_own_within_the_wider(layer: Layer, rates: list[float], absolute: bool) -> None:
    scores, kept, survivors = made([layer], rates)
    with path("torch"):
        found = select(scores, kept, survivors, absolute)
        alone = [select(scores, kept[:, coat], survivors, absolute) for coat in range(kept.shape[1])]
    assert equal(found, Threshold(*(torch.stack(each, 1) for each in zip(*alone, strict=True))))
    chosen = selected(scores[0], Threshold(*(each[0] for each in found)), absolute).view(len(rates), -1)
    alive = layer.make()[2]
    if alive is not None:
        chosen = chosen & alive.view(-1)
    available = layer.edges if alive is None else int(alive.sum())
    assert chosen.sum(1).tolist() == [min(count, available) for count in kept[0].tolist()]
    assert not (chosen[1:] & ~chosen[:-1]).any()


@settings(max_examples=100)
@given(layer=layers(), rates=RATES, absolute=st.booleans(), keys=st.lists(st.tuples(KEYS, KEYS), min_size=5))
def test_wrong_brackets_cost_a_pass_and_nothing_else(
    layer: Layer, rates: list[float], absolute: bool, keys: list[tuple[int, int]]
) -> None:
    """Each coat's of any two keys, in any order, some of them equal; and those of a small sample."""
    scores, kept, survivors = made([layer], rates)
    expected = reference(scores, kept, survivors, absolute)
    with mock.patch.multiple(threshold_cpu, _BLOCK=100, _SAMPLE=8):
        for brackets in (keys[: len(rates)], [keys[0]] * len(rates), None):
            original = threshold_cpu._Layer.brackets
            patched = original if brackets is None else mock.Mock(return_value=brackets)
            with mock.patch.object(threshold_cpu._Layer, "brackets", patched):
                found = select_layer(scores[0], kept[0].tolist(), survivors[0], absolute)
            assert found == [*zip(expected.tau[0].tolist(), expected.last_tied[0].tolist(), strict=True)]


@pytest.mark.parametrize("passes", ["between", "ties"])
def test_one_pass_finds_all_coats(passes: str) -> None:
    """Of scores large enough for brackets, with ties cut in every coat."""
    scores = torch.randn(130, 577, generator=torch.Generator().manual_seed(0)).mul_(64).round_()
    counts = [40_000, 20_000, 9_000, 1_000]
    original = getattr(threshold_cpu._Layer, passes)
    with mock.patch.object(threshold_cpu._Layer, passes, autospec=True, side_effect=original) as called:
        found = select_layer(scores, counts, None, True)
    assert called.call_count == 1
    assert all(last < scores.numel() - 1 for _, last in found), "no ties are cut"
    with path("torch"):
        alone = [select_layer(scores, [count], None, True)[0] for count in counts]
    assert found == alone


@pytest.mark.parametrize("name", PATHS)
def test_fewer_survivors_than_some_coats_keep(name: str) -> None:
    scores = torch.arange(260.0).view(2, 130)
    alive = torch.zeros(2, 130, dtype=torch.bool)
    alive[1, 5:10] = True
    with path(name) as on, guarded():
        tau, last_tied = select(*on(([scores], torch.tensor([[200, 6, 5, 2]]), [pack_plain(alive)])))
    keys = scores.view(torch.int32)
    assert tau.tolist() == [[NAN_KEY, NAN_KEY, int(keys[1, 5]), int(keys[1, 8])]]
    assert last_tied.tolist() == [[259] * 4]


def test_ties_in_different_tiles(on_triton: On) -> None:
    """Coats that cut the ties of one key, and of another, in tiles of their own (select/test_op.py)."""
    times = 128 if COMPILED else 1
    scores = torch.full((7, 331 * times), 0.5)
    scores[3, :7] = 2.0
    counts = [2000 * times, 1100 * times, 300 * times, 3]
    call = [scores], torch.tensor([counts]), [None]
    found = home(select(*on_triton(call)))
    assert found.last_tied.tolist() == [[counts[0] - 1, counts[1] - 1, counts[2] - 8, 3 * scores.shape[1] + 2]]
    assert len({last // TILE for last in found.last_tied[0].tolist()}) == 4
    assert equal(found, reference(*call, True))


def test_launches_do_not_grow_with_coats(on_triton: On) -> None:
    def launches(kept: Tensor) -> list[str]:
        started: list[str] = []
        with launcher(lambda kernel, *_: started.append(kernel.__name__)):
            select(*on_triton(([random_reals((3, 300), 1)], kept)), [None])
        return started

    assert launches(torch.tensor([5])) == launches(torch.tensor([[5, 4, 3, 2]]))


@pytest.mark.parametrize("name", PATHS)
def test_op_is_registered_right(name: str) -> None:
    scores = [random_reals((3, 43), 1), random_reals((2, 3, 5), 2)]
    survivors = [None, pack_plain(random_mask(2, 15, 0.5, 3))]
    with path(name) as on:
        given = on((scores, torch.tensor([[7, 3], [9, 9]]), survivors, True))
        torch.library.opcheck(torch.ops.supermask.select.default, given)


@pytest.mark.parametrize("name", PATHS)
def test_compiles_into_one_graph(name: str) -> None:
    scores, kept = random_reals((31, 9), 1), torch.tensor([[100, 30, 7]])

    def masks(scores: Tensor, kept: Tensor) -> Tensor:
        found = select([scores], kept, [None])
        return selected(scores, Threshold(*(each[0] for each in found)), absolute=True)

    with path(name) as on:
        chosen = home(torch.compile(masks, fullgraph=True, backend="aot_eager")(*on((scores, kept))))
    assert torch.equal(chosen, masks(scores, kept))
    assert chosen.sum((1, 2)).tolist() == [100, 30, 7]


def test_traces_for_a_gpu_without_one() -> None:
    with FakeTensorMode():
        kept = torch.empty(2, 3, dtype=torch.int64, device="cuda")
        found = select([torch.empty(8, 27, device="cuda"), torch.empty(10, 33, device="cuda")], kept, [None, None])
        chosen = selected(torch.empty(8, 27, device="cuda"), Threshold(*(each[0] for each in found)), absolute=True)
    assert [(each.dtype, each.shape, each.device.type) for each in found] == [
        (torch.int32, (2, 3), "cuda"),
        (torch.int64, (2, 3), "cuda"),
    ]
    assert (chosen.dtype, chosen.shape) == (torch.bool, (3, 8, 27))
