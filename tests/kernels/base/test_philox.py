"""Draws equal a Philox written here in plain Python integers, on every path."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from supermask.kernels.base.launch import jit, launch, tl
from supermask.kernels.base.philox import (
    RERANDOMISE,
    SCORES,
    WEIGHTS,
    _philox_torch,
    as_int64,
    draws,
    normal,
    sign_words,
    stream,
    uniform,
)
from tests.devices import On, home
from tests.kernels.paths import COLS, ROWS, SEEDS, every_path, guarded, path, same

LAYERS = st.integers(0, 1000)
GENERATIONS = st.sampled_from([0, 1, 2, 2**22 - 1])
PURPOSES = st.sampled_from([WEIGHTS, SCORES, RERANDOMISE, 255])
WORDS = {  # (seed, counter): the four words
    (0x0, (0, 0, 0, 0)): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    (2**64 - 1, (2**32 - 1,) * 4): (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    (0x299F31D0A4093822, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)): (
        0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1,
    ),
    (0x0123456789ABCDEF, (1, 5, 3, 0)): (0xC44ECAA8, 0xCB535223, 0x76BCB759, 0xB48FD465),
}  # fmt: skip


@cache
def philox(seed: int, position: int, row: int, layer: int, stream: int) -> tuple[int, int, int, int]:
    key, (a, b, c, d) = [seed % 2**32, seed >> 32], (position, row, layer, stream)
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ key[0], q % 2**32, (p >> 32) ^ d ^ key[1], p % 2**32
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return a, b, c, d


def sign_words_plain(seed: int, layer: int, rows: int, cols: int, generation: int) -> Tensor:
    """Bit by bit, the definition."""
    out = np.zeros((rows, 4 * -(-cols // 128)), dtype=np.uint32)
    for row in range(rows):
        for col in range(cols):
            word = philox(seed, col // 128, row, layer, 256 * generation)[col % 128 // 32]
            out[row, col // 32] |= (word >> col % 32 & 1) << col % 32
    return torch.from_numpy(out.view(np.int32))


def words_plain(seed: int, layer: int, rows: int, cols: int, stream: int) -> np.ndarray:
    """The word of each edge, uint32 [rows, cols]."""
    drawn = [[philox(seed, col // 4, row, layer, stream)[col % 4] for col in range(cols)] for row in range(rows)]
    return np.array(drawn, dtype=np.uint32)


def ulps(a: Tensor, b: Tensor) -> int:
    """The largest distance of two float32 tensors, in float32 numbers between them."""
    bits = [t.view(torch.int32).long() for t in (a, b)]
    places = [torch.where(b < 0, -(2**31) - b, b) for b in bits]
    return int((places[0] - places[1]).abs().max())


@jit
def _four_words_kernel(words_ptr, seed, position, row, layer, stream):
    drawn = tl.philox(seed, position + tl.arange(0, 1), row, layer, stream)
    for j in tl.static_range(4):
        tl.store(words_ptr + j + tl.arange(0, 1), drawn[j].to(tl.int32, bitcast=True))


@pytest.mark.parametrize(("place", "words"), WORDS.items())
def test_known_answers(place: tuple[int, tuple[int, ...]], words: tuple[int, ...], on_triton: On) -> None:
    seed, counter = place
    assert philox(seed, *counter) == words
    drawn = _philox_torch(*torch.tensor(counter).unbind(), as_int64(seed))
    assert tuple(int(word) for word in drawn) == words
    out = on_triton(torch.zeros(4, dtype=torch.int32))
    signed = [word - 2**32 if word >> 31 else word for word in counter]
    launch(_four_words_kernel, (1,), out, as_int64(seed), *signed)
    assert tuple(word % 2**32 for word in out.tolist()) == words


def test_example_of_a_layer() -> None:
    for words in every_path(lambda on: sign_words(0x0123456789ABCDEF, 3, 7, 300, device=on.device)):
        assert [word % 2**32 for word in words[5, 4:8].tolist()] == [0xC44ECAA8, 0xCB535223, 0x76BCB759, 0xB48FD465]


@given(seed=SEEDS, layer=LAYERS, rows=ROWS, cols=COLS, generation=GENERATIONS)
def test_sign_words_are_the_definition(seed: int, layer: int, rows: int, cols: int, generation: int) -> None:
    expected = sign_words_plain(seed, layer, rows, cols, generation)
    for words in every_path(lambda on: sign_words(seed, layer, rows, cols, generation=generation, device=on.device)):
        assert same(words, expected)


@given(
    seed=SEEDS,
    layer=LAYERS,
    rows=ROWS,
    cols=COLS,
    purpose=PURPOSES,
    generation=GENERATIONS,
    low=st.floats(-100, 100),
    width=st.floats(0, 100),
)
def test_uniform_is_the_definition(
    *, seed: int, layer: int, rows: int, cols: int, purpose: int, generation: int, low: float, width: float
) -> None:
    rows, high = min(rows, 33), low + width
    words = words_plain(seed, layer, rows, cols, purpose + 256 * generation)
    unit = (words >> 8).astype(np.float32) * np.float32(2.0**-24)
    scaled = (np.float32(high) - np.float32(low)) * unit
    expected = torch.from_numpy(np.float32(low) + scaled)
    place = {"purpose": purpose, "generation": generation}
    for draw in every_path(lambda on: uniform(seed, layer, rows, cols, low=low, high=high, **place, device=on.device)):
        assert same(draw, expected)


@given(
    seed=SEEDS, layer=LAYERS, rows=ROWS, cols=COLS, purpose=PURPOSES, generation=GENERATIONS, std=st.floats(1e-3, 10)
)
def test_normal_is_the_definition_to_two_ulp(
    *, seed: int, layer: int, rows: int, cols: int, purpose: int, generation: int, std: float
) -> None:
    rows = min(rows, 33)
    unit = (words_plain(seed, layer, rows, cols + 3, purpose + 256 * generation) >> 8).astype(np.float64) * 2.0**-24
    pair = np.arange(cols) // 2 * 2
    radius, angle = np.sqrt(-2 * np.log(unit[:, pair] + 2.0**-24)), 2 * math.pi * unit[:, pair + 1]
    exact = np.float64(np.float32(std)) * radius * np.where(np.arange(cols) % 2 == 0, np.cos(angle), np.sin(angle))
    expected = torch.from_numpy(exact.astype(np.float32))
    place = {"purpose": purpose, "generation": generation}
    for draw in every_path(lambda on: normal(seed, layer, rows, cols, std=std, **place, device=on.device)):
        assert draw.isfinite().all()
        assert draw.shape == expected.shape
        assert ulps(draw, expected) <= 2


@pytest.mark.parametrize(("rows", "cols"), [(1, 8193), (300, 5), (5, 128 * 64 + 3)])
def test_layers_wider_or_taller_than_a_program(rows: int, cols: int) -> None:
    """The Triton path splits these, the PyTorch path does not."""
    few = min(rows, 300), min(cols, 300)
    words = every_path(lambda on: sign_words(7, 1, rows, cols, device=on.device))
    units = every_path(lambda on: uniform(7, 1, *few, low=-1.0, high=1.0, purpose=SCORES, device=on.device))
    for first, *others in (words, units):
        assert all(same(other, first) for other in others)


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_an_edge_is_drawn_alike_in_a_layer_of_any_size(name: str) -> None:
    shapes, scores = ((70, 261), (33, 131)), {"low": -1.0, "high": 1.0, "purpose": SCORES}
    with path(name) as on, guarded():
        large, small = (home(sign_words(5, 2, *shape, device=on.device)) for shape in ((70, 300), (33, 131)))
        wide, narrow = (home(uniform(5, 2, *shape, **scores, device=on.device)) for shape in shapes)
        tall, short = (home(normal(5, 2, *shape, std=1.0, purpose=WEIGHTS, device=on.device)) for shape in shapes)
    assert torch.equal(large[:33, :4], small[:, :4])
    assert torch.equal(large[:33, 4] & 7, small[:, 4])
    assert torch.equal(wide[:33, :131], narrow)
    assert torch.equal(tall[:33, :131], short)


@pytest.mark.parametrize("block", [1, 60, 1 << 15])
def test_draws_of_several_generations_are_those_of_each(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supermask.kernels.base.philox._CALLS_AT_ONCE", block)
    several = draws(7, 2, range(3, 9), 13, purpose=SCORES, generations=[0, 5, 2**22 - 1])
    assert several.shape == (3, 6, 13)
    for generation, drawn in zip([0, 5, 2**22 - 1], several, strict=True):
        unit = uniform(7, 2, 9, 13, low=0.0, high=1.0, purpose=SCORES, generation=generation)
        assert torch.equal(drawn.float() * 2.0**-24, unit[3:])


def test_blocks_of_rows_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """The PyTorch path draws a block of rows at a time; of a size that is private, since it changes no result."""
    shape = (23, 261)
    whole = sign_words(5, 2, *shape), uniform(5, 2, *shape, low=0.0, high=1.0, purpose=SCORES)
    monkeypatch.setattr("supermask.kernels.base.philox._CALLS_AT_ONCE", 150)
    assert torch.equal(whole[0], sign_words(5, 2, *shape))
    assert torch.equal(whole[1], uniform(5, 2, *shape, low=0.0, high=1.0, purpose=SCORES))


def test_draws_spread_as_their_distribution(on: On) -> None:
    n = 512 * 512
    draw = uniform(11, 0, 512, 512, low=-1.0, high=3.0, purpose=SCORES, device=on.device).double()
    assert -1 <= draw.min() < -0.999 < 2.999 < draw.max() <= 3
    assert abs(draw.mean() - 1) < 5 * (4 / 12**0.5) / n**0.5
    assert abs(draw.std() - 4 / 12**0.5) < 0.01
    draw = normal(11, 0, 512, 512, std=0.5, purpose=WEIGHTS, device=on.device).double()
    assert abs(draw.mean()) < 5 * 0.5 / n**0.5
    assert abs(draw.std() - 0.5) < 5 * 0.5 / (2 * n) ** 0.5
    assert abs((draw.abs() < 0.5).double().mean() - 0.6827) < 0.005
    assert abs((draw[:, ::2] * draw[:, 1::2]).mean()) < 5 * 0.25 / (n / 2) ** 0.5


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 12},
        {"seed": 11 + 2**32},
        {"layer": 1},
        {"generation": 1},
        {"purpose": WEIGHTS},
    ],
    ids=str,
)
def test_draws_of_other_places_are_unrelated(other: dict[str, int]) -> None:
    place = {"seed": 11, "layer": 0, "generation": 0, "purpose": SCORES}
    one, two = (uniform(**which, rows=256, cols=256, low=-1.0, high=1.0) for which in (place, place | other))
    assert abs((one * two).mean()) < 5 * (1 / 3) / 256
    if "purpose" not in other:
        one, two = (sign_words(11, 0, 256, 256), sign_words(**{"seed": 11, "layer": 0, **other}, rows=256, cols=256))
        agreeing = sum(32 - (word % 2**32).bit_count() for word in (one ^ two).flatten().tolist())
        assert abs(agreeing / 256**2 - 0.5) < 5 * 0.5 / 256


@pytest.mark.parametrize("seed", [-1, 2**64, -(2**63)])
def test_a_seed_of_other_than_64_bits_is_refused(seed: int) -> None:
    for draw in (
        lambda: sign_words(seed, 0, 1, 1),
        lambda: uniform(seed, 0, 1, 1, low=0.0, high=1.0, purpose=SCORES),
        lambda: normal(seed, 0, 1, 1, std=1.0, purpose=SCORES),
    ):
        with pytest.raises(ValueError, match=f"seed {seed}: "):
            draw()


@pytest.mark.parametrize(("purpose", "generation"), [(-1, 0), (256, 0), (2, -1), (2, 2**22)])
def test_a_stream_out_of_range_is_refused(purpose: int, generation: int) -> None:
    with pytest.raises(ValueError, match=f"purpose {purpose}, generation {generation}: "):
        stream(purpose, generation)
    with pytest.raises(ValueError, match="generation"):
        uniform(0, 0, 1, 1, low=0.0, high=1.0, purpose=purpose, generation=generation)
    with pytest.raises(ValueError, match="generation"):
        normal(0, 0, 1, 1, std=1.0, purpose=purpose, generation=generation)


def test_streams_differ_wherever_purpose_or_generation_does() -> None:
    places = [(purpose, generation) for purpose in (0, 1, 255) for generation in (0, 1, 2**22 - 1)]
    streams = {stream(*place) for place in places}
    assert len(streams) == len(places)
    assert all(0 <= number < 2**31 for number in streams)
    assert stream(3, 2) == 3 + 256 * 2


OPS = {
    "sign_words": ((-1, 3, 256, 5, 131), (5, 8), torch.int32),
    "uniform": ((2**63 - 1, 3, 258, -1.0, 2.0, 5, 131), (5, 131), torch.float32),
    "normal": ((0, 3, 258, 0.5, 5, 131), (5, 131), torch.float32),
}


@pytest.mark.parametrize("name", ["torch", "triton"])
@pytest.mark.parametrize("op", OPS)
def test_opcheck(op: str, name: str) -> None:
    with path(name) as on:
        torch.library.opcheck(getattr(torch.ops.supermask, op), (*OPS[op][0], on.device))


@pytest.mark.parametrize("op", OPS)
def test_traces_for_a_gpu(op: str) -> None:
    args, shape, dtype = OPS[op]
    with FakeTensorMode():
        out = getattr(torch.ops.supermask, op)(*args, torch.device("cuda"))
    assert (tuple(out.shape), out.dtype, out.device.type) == (shape, dtype, "cuda")
