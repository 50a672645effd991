"""Planes of bits: every encoding gives them back to the bit, at no more than their entropy, as the page says."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supermask.kernels.base.bits import pack, popcount
from supermask.tickets.coding import planes as mask_coding
from supermask.tickets.coding.levels import BINS, Draws, Grid, Levels
from supermask.tickets.coding.planes import CodeError, decode, encode_ans, encode_raw, flat_ones

SIZES = st.sampled_from([1, 2, 3, 8, 31, 33, 127, 128, 129])
SHAPES = (
    st.tuples(SIZES)
    | st.tuples(SIZES, SIZES)
    | st.tuples(SIZES, st.integers(1, 9), st.sampled_from([1, 3]), st.sampled_from([1, 2, 3]))
)
DENSITIES = st.sampled_from([0.0, 0.001, 0.03, 0.5, 0.97, 1.0])


def random_mask(shape: tuple[int, int], density: float, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape) < density)


def words_of(bits: Any) -> torch.Tensor:
    return pack(torch.as_tensor(np.ascontiguousarray(bits)).bool())


def levels_for(grid: Grid, seed: int, draws: Draws | None, thresholds: int, bits: int) -> Levels:
    """Some levels, with no regard for any mask."""
    random = np.random.default_rng(seed)
    axes = [random.integers(0, 1 << bits, size).astype(np.uint8) for size in grid.sizes]
    bins = np.sort(random.integers(1, BINS, thresholds if draws else 0))
    odds = random.integers(0, 1 << 16, Levels.count(bins, (axes[0], axes[1], axes[2]))).astype(np.uint16)
    return Levels(draws=draws, thresholds=bins, axes=(axes[0], axes[1], axes[2]), odds=odds)


@settings(max_examples=120)
@given(
    shape=SHAPES,
    density=DENSITIES,
    outer=st.none() | DENSITIES,
    seed=st.integers(0, 2**64 - 1),
    layer=st.integers(0, 2**31 - 1),
    draws=st.none() | st.builds(Draws, absolute=st.booleans(), generation=st.sampled_from([0, 1, (1 << 22) - 1])),
    thresholds=st.sampled_from([0, 1, 40, 255]),
    bits=st.integers(0, 4),
    data=st.integers(0, 2**31),
)
def test_planes_come_back(
    shape: tuple[int, ...], density: float, outer: float | None, seed: int, layer: int, draws: Draws | None,
    thresholds: int, bits: int, data: int,
) -> None:  # fmt: skip
    """Raw, at one density and by any levels, over all edges or over those of another plane."""
    grid = Grid(shape=shape, seed=seed, layer=layer)
    within = None if outer is None else random_mask((grid.rows, grid.cols), outer, data)
    chosen = random_mask((grid.rows, grid.cols), density, data + 1)
    chosen = chosen if within is None else chosen & within
    words, inside = words_of(chosen), None if within is None else words_of(within)
    kept, count = int(chosen.sum()), grid.rows * grid.cols if within is None else int(within.sum())

    raw = encode_raw(words, grid, inside)
    whole = chosen.flatten() if within is None else chosen[within]
    assert raw == np.packbits(whole.numpy(), bitorder="little").tobytes()
    assert torch.equal(decode(raw, "raw", grid, inside, kept=kept, count=count), words)
    for levels in (None, levels_for(grid, data, draws, thresholds, bits)):
        coded = encode_ans(words, grid, inside, kept=kept, count=count, levels=levels)
        assert (coded == b"") == (kept in (0, count))
        assert torch.equal(decode(coded, "ans", grid, inside, kept=kept, count=count), words)
        for wrong in (kept - 1, kept + 1):
            if 0 <= wrong <= count and coded:
                try:
                    other = decode(coded, "ans", grid, inside, kept=wrong, count=count)
                except CodeError:
                    continue
                # Few edges leave room for another plane: then it has that number, and its code is this one.
                assert encode_ans(other, grid, inside, kept=wrong, count=count, levels=levels) == coded
                assert int(popcount(other).sum()) == wrong


def by_hand(coded: bytes, ones: list[int]) -> list[int]:
    """The loop of docs/ticket-format.md."""
    stack = list(np.frombuffer(coded + bytes(-len(coded) % 4), "<u4").tolist())
    state = 0
    while state < 1 << 32 and stack:
        state = state << 32 | stack.pop()
    bits = []
    for one in ones:
        zeros, quantile = (1 << 24) - one, state % (1 << 24)
        bits.append(int(quantile >= zeros))
        state = (state >> 24) * (one if bits[-1] else zeros) + quantile - (zeros if bits[-1] else 0)
        if state < 1 << 32 and stack:
            state = state << 32 | stack.pop()
    assert (state, stack) == (0, [])
    return bits


@settings(max_examples=150)
@given(ones=st.lists(st.integers(1, (1 << 24) - 1), min_size=1, max_size=60), data=st.integers(0, 2**31))
@example(ones=[1, (1 << 24) - 1, 1 << 23, 2, (1 << 24) - 2], data=0)
def test_odds_are_the_integers_they_are_said_to_be(ones: list[int], data: int) -> None:
    """The library takes probabilities as floating-point numbers; what it makes of ours is the integer in every case."""
    bits = np.random.default_rng(data).integers(0, 2, len(ones)).astype(np.int32)
    coder = mask_coding._Coder()
    coder.encode_reverse(bits, mask_coding._Bernoulli(perfect=False), mask_coding._probability(np.array(ones)))
    assert by_hand(coder.get_compressed().astype("<u4").tobytes(), ones) == bits.tolist()
    for one in ones[:3]:
        coder = mask_coding._Coder()
        model = mask_coding._Bernoulli(float(mask_coding._probability(one)), perfect=False)
        coder.encode_reverse(bits, model)
        assert by_hand(coder.get_compressed().astype("<u4").tobytes(), [one] * len(ones)) == bits.tolist()


def test_known_answers() -> None:
    """Bytes that every release writes and reads."""
    grid = Grid(shape=(3, 7), seed=0x0123456789ABCDEF, layer=3)
    chosen = (np.arange(21) % 3 == 0).reshape(3, 7)
    words = words_of(chosen)
    assert encode_raw(words, grid, None).hex() == "499204"
    assert encode_ans(words, grid, None, kept=7, count=21, levels=None).hex() == "005bd4aaa2ef"
    levels = Levels(
        draws=Draws(absolute=True, generation=2),
        thresholds=np.array([1000, 1000, 3000]),
        axes=(np.array([0, 1, 2], np.uint8), np.array([0, 0, 1, 0, 3, 0, 0], np.uint8), np.zeros(1, np.uint8)),
        odds=np.arange(9, dtype=np.uint16) * 7000,
    )
    coded = encode_ans(words, grid, None, kept=7, count=21, levels=levels)
    assert coded.hex() == KNOWN_LEVELS
    assert torch.equal(decode(coded, "ans", grid, None, kept=7, count=21), words)
    assert levels.draws is not None
    assert levels.draws.bins(grid, range(1, 2)).tolist() == KNOWN_BINS


RESNET18 = [(64, 27), *[(64, 576)] * 4, (128, 576), (128, 64), *[(128, 1152)] * 3, (256, 1152), (256, 128),
            *[(256, 2304)] * 3, (512, 2304), (512, 256), *[(512, 4608)] * 3, (10, 512)]  # fmt: skip
KNOWN_LEVELS = "01010200000003e803e803b80b0224021003000000581bb0360852606db88810a468bfc0da0081df06201a38"
KNOWN_BINS = [[2346, 2851, 3616, 404, 2353, 2752, 3081]]


@pytest.mark.parametrize("remaining", [0.001, 0.035, 0.1, 0.3, 0.5, 0.9, 0.99])
def test_one_density_costs_its_entropy(remaining: float) -> None:
    """Within 0.5 %, each layer of ResNet-18 at its own density; a plane takes 3 or 4 bytes more than its entropy."""
    coded, entropy = 0, 0.0
    for layer, edges in enumerate(RESNET18):
        kept = max(1, round(remaining * edges[0] * edges[1]))
        chosen = np.zeros(edges[0] * edges[1], np.bool_)
        chosen[np.random.default_rng(layer).permutation(len(chosen))[:kept]] = True
        grid = Grid(shape=edges, seed=0, layer=layer)
        data = encode_ans(words_of(chosen.reshape(edges)), grid, None, kept=kept, count=len(chosen), levels=None)
        entropy += sum(part * math.log2(len(chosen) / part) for part in (kept, len(chosen) - kept)) / 8
        coded += len(data)
    assert coded <= 1.005 * entropy


def test_flat_odds_are_clear_of_the_ends() -> None:
    assert flat_ones(1, 1 << 40) == 1
    assert flat_ones((1 << 40) - 1, 1 << 40) == (1 << 24) - 1
    assert flat_ones(1, 2) == 1 << 23


REFUSED = {
    "empty": (b"", "kind [] of odds"),
    "unknown kind": (b"\2abcd", "kind [2] of odds"),
    "zero byte at the end": (b"\0abc\0", "end in a zero byte"),
    "unknown draws": (b"\1\3", "kind 3 of initial scores"),
    "generation": (b"\1\1\0\0\x40\0\0", "generation 4194304"),
    "no thresholds": (b"\1\1\0\0\0\0\2\1\0", "2 bytes left where thresholds take 4"),
    "threshold 0": (b"\1\1\0\0\0\0\1\0\0", "thresholds [0]"),
    "threshold 4096": (b"\1\2\0\0\0\0\1\0\x10", "thresholds [4096]"),
    "thresholds that fall": (b"\1\1\0\0\0\0\2\5\0\4\0", "thresholds [5, 4]"),
    "bits of an axis": (b"\1\0\5", "5 bits for the level of a row"),
    "short axis": (b"\1\0\4\1", "1 bytes left where levels of 3 rows take 2"),
    "unused bits": (b"\1\0\1\xff\0\0\1\0\1\0a", "bits after the last level of a row"),
    "short odds": (b"\1\0\0\0\0\1", "1 bytes left where odds of 1 levels take 2"),
    "nothing at all": (b"\1", "the kind of initial scores"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bytes_that_are_no_plane(case: str) -> None:
    data, said = REFUSED[case]
    with pytest.raises(CodeError) as caught:
        decode(data, "ans", Grid(shape=(3, 7), seed=0, layer=0), None, kept=7, count=21)
    assert said in str(caught.value)


@settings(max_examples=100)
@given(data=st.binary(max_size=80), kept=st.integers(0, 21))
def test_any_bytes_decode_or_are_refused(data: bytes, kept: int) -> None:
    """And what decodes encodes to the same bytes: there is one way to write it, at its odds."""
    grid = Grid(shape=(3, 7), seed=0, layer=0)
    try:
        words = decode(data, "ans", grid, None, kept=kept, count=21)
    except CodeError:
        return
    levels = Levels.from_bytes(data[1:], grid)[0] if data[:1] == b"\1" else None
    again = encode_ans(words, grid, None, kept=kept, count=21, levels=levels)
    assert torch.equal(decode(again, "ans", grid, None, kept=kept, count=21), words)
    assert again == data


@settings(max_examples=60)
@given(
    shape=SHAPES,
    draws=st.none() | st.builds(Draws, absolute=st.booleans(), generation=st.integers(0, 99)),
    thresholds=st.integers(0, 255),
    bits=st.integers(0, 4),
    data=st.integers(0, 2**31),
    rest=st.binary(max_size=9),
)
def test_levels_come_back(
    shape: tuple[int, ...], draws: Draws | None, thresholds: int, bits: int, data: int, rest: bytes
) -> None:
    grid = Grid(shape=shape, seed=1, layer=2)
    levels = levels_for(grid, data, draws, thresholds, bits)
    found, left = Levels.from_bytes(levels.to_bytes() + rest, grid)
    assert left == rest
    assert found.draws == draws
    assert all(np.array_equal(a, b) for a, b in zip(found.axes, levels.axes, strict=True))
    assert np.array_equal(found.thresholds, levels.thresholds)
    assert np.array_equal(found.odds, levels.odds)
    whole = found.of(grid, range(grid.rows))
    assert 0 <= whole.min() <= whole.max() < len(found.odds)
    pieces = [found.of(grid, range(row, row + 1)) for row in range(grid.rows)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_bins_are_those_of_the_scores() -> None:
    """An edge of a higher bin has a higher initial score, or one further from zero."""
    from supermask.edges.draws import initial_scores
    from supermask.kernels.base.philox import SCORES

    assert SCORES == 2
    grid = Grid(shape=(40, 50), seed=9, layer=4)
    for generation in (0, 3):
        scores = initial_scores("kaiming_uniform", 9, 4, (40, 50), generation=generation, device=torch.device("cpu"))
        for absolute in (True, False):
            bins = Draws(absolute=absolute, generation=generation).bins(grid, range(40)).ravel()
            ranked = (scores.abs() if absolute else scores).numpy().ravel()
            order = np.argsort(ranked, kind="stable")
            assert (np.diff(bins[order]) >= 0).all()
            assert len(np.unique(bins)) > 1000
