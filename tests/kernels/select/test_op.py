"""The selection against a stable sort of the scores themselves, on every path, to the bit."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from supermask.kernels.base.bits import pack
from supermask.kernels.base.keys import NAN_KEY, REMOVED_KEY, Threshold, score_key, score_keys
from supermask.kernels.base.launch import jit, launch, launcher, tl
from supermask.kernels.select.gpu import reciprocal
from supermask.kernels.select.op import select, selected
from tests.devices import On, home
from tests.kernels.paths import COMPILED, PATHS, guarded, path, sizes

INT32_MIN = -(2**31)
TILE, TILES = (32768, 1024) if COMPILED else (256, 2)  # edges of a tile, and tiles searched for ties at a time

SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 1e-38, 1.0, -1.0, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, -np.nan]
VALUES = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "few": lambda rng, n: rng.integers(-2, 3, n),
    "equal": lambda rng, n: np.full(n, rng.standard_normal()),
    "zeros": lambda rng, n: rng.choice([0.0, -0.0], n),
    "denormal": lambda rng, n: rng.integers(-9, 10, n) * 1e-45,
    "close": lambda rng, n: 1 + rng.integers(-40, 40, n) * 2.0**-23,
    "special": lambda rng, n: rng.choice(SPECIAL, n),
    "nan": lambda rng, n: np.copysign(np.where(rng.random(n) < 0.7, np.nan, rng.random(n)), rng.standard_normal(n)),
    "-nan": lambda rng, n: np.where(rng.random(n) < 0.7, -np.nan, rng.standard_normal(n)),
}


class Layer(NamedTuple):
    """One layer of a call: its scores are a function of the rest."""

    shape: tuple[int, ...]
    values: str
    seed: int
    kept: float = 0.5
    """0 keeps one edge, 1 all."""
    alive: float | None = None
    """Share of survivors; None for a layer without hard pruning."""

    @property
    def edges(self) -> int:
        return int(np.prod(self.shape))

    def make(self) -> tuple[Tensor, int, Tensor | None]:
        rng = np.random.default_rng(self.seed)
        scores = torch.from_numpy(VALUES[self.values](rng, self.edges).astype(np.float32)).view(self.shape)
        matrix = (self.shape[0], self.edges // self.shape[0])
        alive = None if self.alive is None else torch.from_numpy(rng.random(matrix) < self.alive)
        return scores, max(1, round(self.kept * self.edges)), alive


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    size = sizes([1, 2, 3, 31, 33, 127, 128, 129, 257, 521], [1031, 40_009])
    rows = draw(size)
    inner = draw(size.filter(lambda cols: rows * cols <= (130_000 if COMPILED else 700)))
    return Layer(
        shape=draw(st.sampled_from([(rows, inner), (rows, inner, 1)] + ([(rows,)] if inner == 1 else []))),
        values=draw(st.sampled_from(sorted(VALUES))),
        seed=draw(st.integers(0, 2**32 - 1)),
        kept=draw(st.sampled_from([0.0, 0.03, 0.3, 0.5, 0.97, 1.0])),
        alive=draw(st.sampled_from([None, None, 0.0, 0.1, 0.6, 1.0])),
    )


def oracle(scores: Tensor, kept: int, alive: Tensor | None, absolute: bool) -> tuple[Tensor, int, int]:
    """The mask, tau and the last tied index, from a stable sort of the values."""
    s = scores.double().reshape(-1)
    value = torch.where(s.isnan(), 0.0, s.abs() if absolute else s)
    alive = torch.ones_like(s, dtype=torch.bool) if alive is None else alive.reshape(-1)
    tier = alive.int() * (2 - s.isnan().int())  # removed edges, then NaN, then numbers
    order = torch.sort(value, descending=True, stable=True).indices
    order = order[torch.sort(tier[order], descending=True, stable=True).indices]
    mask = torch.zeros_like(alive)
    mask[order[:kept]] = True
    mask &= alive
    n = s.numel()
    if int(alive.sum()) < kept:
        return mask, NAN_KEY, n - 1
    last = int(order[kept - 1])
    tau = int(score_keys(scores, absolute).reshape(-1)[last])
    tied = alive & (value == value[last]) & (tier == tier[last])
    return mask, tau, n - 1 if bool((tied & mask).eq(tied).all()) else last


def check(name: str, call: list[Layer], absolute: bool) -> None:
    made = [layer.make() for layer in call]
    scores = [s for s, _, _ in made]
    kept = torch.tensor([k for _, k, _ in made])
    survivors = [None if alive is None else pack(alive) for _, _, alive in made]
    with path(name) as on, guarded():
        given = on((scores, kept, survivors))
        tau, last_tied = home(select(*given, absolute))
    for before, after in zip((scores, [kept], survivors), home((given[0], [given[1]], given[2])), strict=True):
        for one, other in zip(before, after, strict=True):
            if one is not None:
                assert torch.equal(one.view(torch.uint8), other.view(torch.uint8))  # NaN equals itself

    expected = [oracle(s, k, alive, absolute) for s, k, alive in made]
    assert torch.equal(tau, torch.tensor([key for _, key, _ in expected], dtype=torch.int32))
    assert torch.equal(last_tied, torch.tensor([last for _, _, last in expected]))
    for i, ((s, k, alive), (mask, _, _)) in enumerate(zip(made, expected, strict=True)):
        chosen = selected(s, Threshold(tau[i : i + 1], last_tied[i]), absolute)
        assert chosen.shape == (s.shape[0], s.numel() // s.shape[0])
        kept_edges = chosen if alive is None else chosen & alive
        assert torch.equal(kept_edges.reshape(-1), mask)
        assert int(kept_edges.sum()) == min(k, s.numel() if alive is None else int(alive.sum()))


def edge_cases(test: Any) -> Any:
    """What random layers hit too seldom."""
    tied = [Layer((3, 211), "equal", 1, 0.7), Layer((1,), "zeros", 2), Layer((600,), "equal", 3, 0.0)]
    nan = [Layer((2, 257), "nan", 4, 0.2), Layer((2, 257), "nan", 5, 0.6), Layer((31,), "-nan", 6, 0.5)]
    pruned = [
        Layer((5, 129), "few", 7, 0.3, alive=0.6),
        Layer((5, 129), "nan", 8, 0.3, alive=0.5),
        Layer((2, 33), "normal", 9, 0.5, alive=0.1),
        Layer((300, 2), "equal", 10, 0.4, alive=0.5),
    ]
    for call in (tied, nan, pruned):
        for absolute in (True, False):
            test = example(call=call, absolute=absolute)(test)
    return test


@edge_cases
@given(call=st.lists(layers(), min_size=1, max_size=4), absolute=st.booleans())
@settings(max_examples=100)
def test_torch_select_keeps_exactly_the_highest(call: list[Layer], absolute: bool) -> None:
    for name in ("torch", "native"):
        check(name, call, absolute)


@edge_cases
@given(call=st.lists(layers(), min_size=1, max_size=3), absolute=st.booleans())
@settings(max_examples=15)
def test_triton_select_keeps_exactly_the_highest(call: list[Layer], absolute: bool) -> None:
    check("triton", call, absolute)


def test_no_layers(on_triton: On) -> None:
    tau, last_tied = select([], on_triton(torch.empty(0, dtype=torch.int64)), [])
    assert tau.shape == last_tied.shape == (0,)


def test_tie_in_the_last_of_many_tiles(on_triton: On) -> None:
    """The search for the tile takes more than one step."""
    steps = 1 if COMPILED else 4
    scores = torch.zeros(7, steps * TILES * TILE // 7 + 39)
    edges = scores.view(-1)
    edges[4::7] = -1.0
    edges[-1] = 2.0
    tied = torch.nonzero(edges == -1.0).flatten()
    kept, last_tied = len(tied), int(tied[-2])  # the one of 2.0, and all but the last of -1.0
    assert last_tied // TILE == (scores.numel() - 1) // TILE >= steps * TILES
    found = home(select(on_triton([scores]), on_triton(torch.tensor([kept])), [None]))
    assert torch.equal(found[0], torch.ones(1).view(torch.int32))
    assert torch.equal(found[1], torch.tensor([last_tied]))


@given(n=st.integers(0, 2**32 - 1), divisor=st.integers(1, 2**32 - 1), near=st.integers(-1, 1))
@example(n=2**32 - 1, divisor=1, near=0)
@example(n=2**32 - 1, divisor=2**32 - 1, near=0)
@example(n=2**32 - 1, divisor=2**31 + 1, near=0)
@settings(max_examples=300)
def test_multiplying_divides(n: int, divisor: int, near: int) -> None:
    """As the kernels do in 32 bits, also next to the multiples of the divisor."""
    factor, bits = reciprocal(divisor)
    assert factor < 2**32
    for dividend in (n, min(max(n // divisor * divisor + near, 0), 2**32 - 1)):
        high = dividend * factor >> 32
        total = high + ((dividend - high) >> min(bits, 1))
        assert total < 2**32
        assert total >> max(bits, 1) - 1 == dividend // divisor


def patterns() -> Tensor:
    """Float32 of every kind: each exponent and sign with mantissas at both ends, and random bits."""
    mantissa = torch.tensor([0, 1, 2, 0x400000, 0x7FFFFE, 0x7FFFFF])
    kinds = (torch.arange(512) << 23)[:, None] + mantissa
    bits = torch.cat([kinds.reshape(-1), torch.randint(2**32, (4096,), generator=torch.Generator().manual_seed(0))])
    return (bits + INT32_MIN).to(torch.int32).view(torch.float32)


@pytest.mark.parametrize("absolute", [True, False])
def test_keys_order_as_scores_rank(absolute: bool) -> None:
    scores = patterns()
    keys = score_keys(scores.view(-1, 8), absolute).reshape(-1)
    value = scores.double().abs() if absolute else scores.double()
    number = ~scores.isnan()
    assert torch.equal(keys == NAN_KEY, ~number)
    assert NAN_KEY == REMOVED_KEY + 1 == INT32_MIN + 1
    assert bool((keys[number] > NAN_KEY).all())
    key, index = keys[number].sort()
    ascending = value[number][index]
    assert torch.equal(key.diff().sign().int(), ascending.diff().sign().nan_to_num().int())


@jit
def _key_kernel(scores_ptr, keys_ptr, n, ABSOLUTE: tl.constexpr, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    keys = score_key(tl.load(scores_ptr + offs, mask=offs < n, other=0.0), ABSOLUTE)
    tl.store(keys_ptr + offs, keys, mask=offs < n)


@pytest.mark.parametrize("absolute", [True, False])
def test_kernels_make_the_same_keys(absolute: bool, on_triton: On) -> None:
    scores, keys = on_triton((patterns(), torch.full(patterns().shape, 12345, dtype=torch.int32)))
    launch(_key_kernel, (1,), scores, keys, scores.numel(), ABSOLUTE=absolute, BLOCK=8192)
    assert torch.equal(home(keys), score_keys(patterns(), absolute))


@pytest.mark.parametrize("name", PATHS)
def test_op_is_registered_right(name: str) -> None:
    scores = [torch.randn(3, 43), torch.randn(2, 3, 5)]
    survivors = [None, pack(torch.rand(2, 15) < 0.5)]
    with path(name) as on:
        torch.library.opcheck(torch.ops.supermask.select.default, on((scores, torch.tensor([7, 3]), survivors, True)))


@pytest.mark.parametrize("name", PATHS)
def test_compiles_into_one_graph(name: str) -> None:
    scores, kept = torch.randn(31, 9, requires_grad=True), torch.tensor([100])

    def mask(scores: Tensor, kept: Tensor) -> Tensor:
        return selected(scores, select([scores], kept, [None], absolute=False), absolute=False)

    with path(name) as on:
        chosen = home(torch.compile(mask, fullgraph=True, backend="aot_eager")(*on((scores, kept))))
    assert torch.equal(chosen, mask(scores, kept))
    assert int(chosen.sum()) == 100


@pytest.mark.slow
@pytest.mark.parametrize("absolute", [True, False])
def test_inductor_selects_the_same_edges(absolute: bool, on: On) -> None:
    scores = on(patterns().view(16, -1))
    threshold = select([scores], on(torch.tensor([scores.numel() // 2])), [None], absolute)
    compiled = torch.compile(selected, fullgraph=True)
    assert torch.equal(compiled(scores, threshold, absolute), selected(scores, threshold, absolute))


def test_traces_for_a_gpu_without_one() -> None:
    with FakeTensorMode():
        scores = [torch.empty(8, 3, 3, 3, device="cuda"), torch.empty(10, 33, device="cuda")]
        survivors = [None, torch.empty(10, 4, dtype=torch.int32, device="cuda")]
        tau, last_tied = select(scores, torch.empty(2, dtype=torch.int64, device="cuda"), survivors)
        chosen = selected(scores[0], Threshold(tau[:1], last_tied[:1]), absolute=True)
    assert (tau.dtype, tau.shape, tau.device.type) == (torch.int32, (2,), "cuda")
    assert (last_tied.dtype, last_tied.shape, last_tied.device.type) == (torch.int64, (2,), "cuda")
    assert (chosen.dtype, chosen.shape) == (torch.bool, (8, 27))


def test_launches_do_not_grow_with_layers(on_triton: On) -> None:
    def launches(count: int) -> list[str]:
        started: list[str] = []
        with launcher(lambda kernel, *_: started.append(kernel.__name__)):
            scores = [torch.randn(3 + i, 300) for i in range(count)]
            select(*on_triton((scores, torch.ones(count, dtype=torch.int64))), [None] * count)
        return started

    assert launches(1) == launches(9)
    assert len(launches(9)) == 6


SCORES = torch.ones(4, 40)


@pytest.mark.parametrize(
    ("scores", "kept", "survivors", "error", "said"),
    [
        ([SCORES, SCORES.double()], [1, 1], [None, None], TypeError, r"layer 1.*float64.*float32"),
        ([torch.ones(())], [1], [None], ValueError, r"layer 0.*\(\).*rows"),
        ([torch.ones(4, 0)], [1], [None], ValueError, r"layer 0.*\(4, 0\)"),
        ([SCORES.t()], [1], [None], ValueError, r"layer 0.*\(1, 40\).*contiguous"),
        ([SCORES], [1], [torch.ones(4, 4)], TypeError, r"layer 0.*float32.*int32"),
        ([SCORES], [1], [torch.ones(4, 2, dtype=torch.int32)], ValueError, r"layer 0.*\(4, 2\).*\(4, 4\)"),
        ([SCORES], [1], [torch.ones(4, 4, dtype=torch.int32).t()], ValueError, r"layer 0.*\(1, 4\).*contiguous"),
        ([SCORES], [1], [], ValueError, r"1 layers.*0 survivors"),
        ([SCORES], [1, 2], [None], ValueError, r"1 layers.*\(2,\).*\[1, coats\]"),
        ([SCORES], [[[1]]], [None], ValueError, r"1 layers.*\(1, 1, 1\).*\[1, coats\]"),
        ([SCORES], [[]], [None], TypeError, r"float32.*int64"),
        ([SCORES], [[1] * 65], [None], ValueError, r"\(1, 65\).*1 to 64 coats"),
        ([SCORES, SCORES], [[3, 2], [2, 3]], [None, None], ValueError, r"layer 1: kept is \[2, 3\].*widest"),
        ([SCORES, SCORES], [[3, 2], [161, 1]], [None, None], ValueError, r"layer 1: kept is \[161, 1\].*1 to 160"),
        ([SCORES], [[3, 0]], [None], ValueError, r"layer 0: kept is \[3, 0\].*1 to 160"),
        ([SCORES], [1.0], [None], TypeError, r"float32.*int64"),
        ([SCORES, SCORES], [160, 161], [None, None], ValueError, r"layer 1.*161.*1 to 160"),
        ([SCORES], [0], [None], ValueError, r"layer 0.*kept is 0"),
        ([SCORES.to("meta")], [1], [None], ValueError, r"layer 0.*meta.*cpu"),
        ([SCORES], [1], [torch.ones(4, 4, dtype=torch.int32, device="meta")], ValueError, r"layer 0.*meta.*cpu"),
    ],
)
def test_bad_input_is_named(
    scores: list[Tensor], kept: list[Any], survivors: list[Tensor | None], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        select(scores, torch.tensor(kept), survivors)


@pytest.mark.parametrize("kept", [-5, 0, 7, 1000])
def test_unchecked_counts_stay_inside_the_layer(kept: int, on_triton: On) -> None:
    """A GPU does not look at `kept`: what is out of range must still give a threshold, of nothing or of everything."""
    scores = torch.tensor([[3.0, 1.0, float("nan"), -2.0, 0.0, 2.0]])
    threshold = home(select(*on_triton(([scores], torch.tensor([kept]))), [None]))
    assert int(selected(scores, threshold, absolute=True).sum()) == min(max(kept, 0), 6)
