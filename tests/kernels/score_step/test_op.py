"""score_step against torch.optim.SGD and a selection from scratch, to the bit on every path, whatever the brackets.

To the bit where torch adds with a fused multiply-add, as it does on every processor with AVX2.
"""

import ctypes
import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from supermask.kernels.base.keys import NAN_KEY
from supermask.kernels.base.launch import launcher, start
from supermask.kernels.base.theta import Theta
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from tests.capabilities import kernels_fuse
from tests.devices import home
from tests.kernels.cases import SOURCES, theta_of, theta_plain
from tests.kernels.paths import (
    COMPILED,
    PATHS,
    SEEDS,
    pack_plain,
    path,
    random_mask,
    random_reals,
    same,
    sizes,
    unpack_plain,
)
from tests.kernels.score_step.steps import (
    EDGES,
    INT32,
    NUMBERS,
    SIZES,
    Layer,
    Rule,
    arguments,
    plain_steps,
    some,
    spread,
    steered,
    steps_of,
)  # fmt: skip

RULES = st.builds(
    Rule,
    lr=st.sampled_from([0.0, 0.1, 1.0, 3e-5]),
    momentum=st.sampled_from([0.0, 0.9]),
    weight_decay=st.sampled_from([0.0, 5e-4, 1.0]),
    absolute=st.booleans(),
) | st.builds(
    Rule, momentum=st.sampled_from([0.9, 0.5]), weight_decay=st.sampled_from([0.0, 0.1]), nesterov=st.just(True)
)
EXACT = st.builds(  # whose products need no rounding, so that a sum with one is rounded once whoever adds
    Rule,
    lr=st.sampled_from([0.0, 1.0]),
    momentum=st.sampled_from([0.0, 1.0]),
    weight_decay=st.sampled_from([0.0, 1.0]),
    absolute=st.booleans(),
) | st.builds(
    Rule, lr=st.just(1.0), momentum=st.just(1.0), weight_decay=st.sampled_from([0.0, 1.0]), nesterov=st.just(True)
)
LAUNCHED = st.deferred(lambda: RULES if kernels_fuse() else EXACT)
SHAPES = sizes(
    [(1, 1), (3, 43), (2, 129), (33, 7), (1, 257), (2, 5, 3, 3), (300,), (129, 2), (2, 128)],
    [(300, 331), (1, 70_001), (40_000,), (65, 64, 3, 3)],
)
KEYS = st.sampled_from([*INT32, NAN_KEY, 0, 0x3F800000, -0x3F800000, 0x7F800000]) | st.integers(*INT32)


@st.composite
def layers_of(draw: st.DrawFn) -> Layer:
    shape = draw(SHAPES)
    rows, edges = shape[0], math.prod(shape)
    data = draw(st.integers(0, 2**31))
    theta = theta_of(
        rows,
        edges // rows,
        draw(st.sampled_from(SOURCES)),
        seed=draw(SEEDS),
        constant=draw(st.sampled_from([0.1, 1.0, 3.3333333])),
        data=data,
        special=0.1,
    )
    alive = draw(st.sampled_from([None, None, 0.7, 0.1]))
    return Layer(
        scores=random_reals(shape, data, draw(st.sampled_from([0.0, 0.3, 1.0]))),
        theta=theta._replace(layer=draw(st.integers(0, 100))),
        kept=max(1, round(draw(st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0])) * edges)),
        survivors=None if alive is None else pack_plain(random_mask(rows, edges // rows, alive, data)),
        bracket=draw(st.tuples(KEYS, KEYS)),
    )


def check_steps(layers: list[Layer], rule: Rule, data: int, special: float, name: str) -> None:
    grads = [
        [random_reals(tuple(layer.scores.shape), data + 7 * step + i, special) for i, layer in enumerate(layers)]
        for step in range(2 if name == "triton" else 3)
    ]
    found = steps_of(layers, rule, grads, name)
    for state, expected in zip(found, plain_steps(layers, rule, grads), strict=True):
        for tensor, wanted in zip(state[:-1], expected, strict=True):
            assert same(tensor, wanted)


@NUMBERS
@pytest.mark.parametrize("name", ["torch", "native"])
@settings(max_examples=50)
@given(
    layers=st.lists(layers_of(), min_size=1, max_size=3),
    rule=RULES,
    data=st.integers(0, 2**31),
    special=st.sampled_from([0.0, 0.3]),
)
def test_a_step_is_that_of_torch_and_a_selection(
    *, layers: list[Layer], rule: Rule, data: int, special: float, name: str
) -> None:
    check_steps(layers, rule, data, special, name)


@NUMBERS
@settings(max_examples=8)
@given(
    layers=st.lists(layers_of(), min_size=1, max_size=2),
    rule=LAUNCHED,
    data=st.integers(0, 2**31),
    special=st.sampled_from([0.0, 0.3]),
)
def test_a_launched_step_is_that_of_torch_and_a_selection(
    *, layers: list[Layer], rule: Rule, data: int, special: float
) -> None:
    check_steps(layers, rule, data, special, "triton")


ADVERSARIAL: dict[str, Callable[[], list[Tensor]]] = {
    "nothing moves": lambda: [spread()] * 4,
    "all move past the bracket and back": lambda: [spread(), spread() + 8, spread() + 8, spread() - 8],
    "all change sign": lambda: [spread(), -spread(), spread(), -spread()],
    "all scale": lambda: [spread(), spread() * 64, spread() / 64, spread()],
    "all tie and part": lambda: [spread(), torch.ones(SIZES), torch.ones(SIZES), spread(), spread()],
    "ties in the bracket": lambda: [(spread(seed=i) * 3).round() / 4 + 2 for i in range(4)],
    "zeros of both signs": lambda: [spread(), torch.zeros(SIZES), torch.full(SIZES, -0.0), spread()],
    "some become NaN": lambda: [spread(), spread(), torch.where(spread() < 0.3, math.nan, spread()), spread()],
    "all become NaN": lambda: [spread(), torch.full(SIZES, math.nan), spread()],
    "some become infinite": lambda: [spread(), torch.where(spread().abs() < 1, math.inf, spread()), spread()],
    "a little": lambda: [spread() + i / 128 * spread(seed=1) for i in range(4)],
}


@NUMBERS
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("moves", ADVERSARIAL)
def test_thresholds_are_exact_whatever_scores_do(moves: str, absolute: bool, name: str) -> None:
    survivors = some(0.8) if absolute else None
    layer, rule, grads = steered(ADVERSARIAL[moves](), absolute=absolute, survivors=survivors)
    for (s, *found, _), (wanted, *threshold) in zip(
        steps_of([layer], rule, grads, name), plain_steps([layer], rule, grads), strict=True
    ):
        assert same(s, wanted)
        assert all(map(torch.equal, found, threshold))


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("kept", [1, 2, EDGES - 1, EDGES])
def test_thresholds_at_both_ends(kept: int, name: str) -> None:
    layer, rule, grads = steered([spread(), spread(), spread() + 0.25], absolute=False, kept=kept)
    found, expected = list(steps_of([layer], rule, grads, name)), list(plain_steps([layer], rule, grads))
    for state, wanted in zip(found, expected, strict=True):
        assert all(map(same, state[:-1], wanted))


def words_at(address: int, size: int, device: torch.device) -> Tensor:
    """A copy of the words that lie there."""
    if not size or device.type == "cpu":
        words = list((ctypes.c_int32 * size).from_address(address)) if size else []
        return torch.tensor(words, dtype=torch.int32)

    class There:
        __cuda_array_interface__: ClassVar[dict[str, Any]] = {
            "shape": (size,), "typestr": "<i4", "data": (address, False), "version": 2,
        }  # fmt: skip

    return home(torch.as_tensor(There(), device=device))


def test_signs_are_drawn_once_for_all_layers() -> None:
    """Where a program draws for many rows, for part of one, and for parts of several."""
    times = 16 if COMPILED else 1  # as many more words does a program draw
    shapes = [(67 * times, 3), (1, 4500 * times), (3, 2100 * times), (2, 40)]
    sources = ["seed", "seed", "seed", "base"]
    layers = [
        Layer(scores=torch.zeros(s), theta=theta_of(*s, source), kept=1)
        for s, source in zip(shapes, sources, strict=True)
    ]
    drawn: list[Tensor] = []

    def draw(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], meta: dict[str, Any]) -> None:
        if kernel.__name__ not in ("_spread_kernel", "_score_signs_kernel"):
            return
        start(kernel, grid, args, meta)
        if kernel.__name__ == "_spread_kernel":
            return
        for (rows, cols), address in zip(shapes, args[0].view(len(shapes), -1)[:, 2].tolist(), strict=True):
            size = rows * 4 * -(-cols // 128) if address else 0
            drawn.append(words_at(address, size, args[0].device).view(rows, -1))

    with launcher(draw):
        list(steps_of(layers, Rule(), [[layer.scores for layer in layers]], "triton"))
    assert drawn.pop().numel() == 0
    for words, layer in zip(drawn, layers, strict=False):
        weights = theta_plain(layer.theta, *layer.sizes)
        assert torch.equal(unpack_plain(words, layer.sizes[1]), weights < 0)


def test_launches_do_not_grow_with_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    def launches(count: int, source: str) -> list[str]:
        started: list[str] = []
        layers = [
            Layer(scores=torch.randn(3 + i, 300), theta=theta_of(3 + i, 300, source), kept=7) for i in range(count)
        ]
        with launcher(lambda kernel, *_: started.append(kernel.__name__)):
            list(steps_of(layers, Rule(momentum=0.9), [[layer.scores for layer in layers]], "triton"))
        return started

    assert launches(1, "seed") == launches(9, "seed")
    assert len(launches(9, "seed")) == 11
    assert len(launches(9, "base")) == 9


@pytest.mark.parametrize("name", PATHS)
def test_no_layers(name: str) -> None:
    with path(name) as on:
        counts, brackets = on((torch.empty(0, dtype=torch.int64), torch.empty(0, 2, dtype=torch.int32)))
        tau, last_tied = score_step([], [], [], [], [], counts, brackets, lr=0.1)
    assert tau.shape == last_tied.shape == (0,)


@pytest.mark.parametrize("name", PATHS)
def test_parameters_are_stepped_in_place(name: str) -> None:
    """And what they were saved for knows."""
    with path(name) as on:
        scores = on(torch.nn.Parameter(spread()))
        version = scores._version
        arguments(scores, on(torch.ones(SIZES)))()
    assert scores._version > version
    assert not torch.equal(home(scores), spread())


@pytest.mark.parametrize("name", ["torch", "triton"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_opcheck(name: str, momentum: float) -> None:
    shapes = [(3, 43), (2, 3, 5)]
    scores = [random_reals(shape, i) for i, shape in enumerate(shapes)]
    momenta = [torch.zeros_like(s) for s in scores] if momentum else []
    survivors = [None, pack_plain(random_mask(2, 15, 0.5, 0))]
    thetas = [theta_of(3, 43, "seed"), theta_of(2, 15, "base")]
    schemas = [list(part) for part in zip(*(theta.schema() for theta in thetas), strict=True)]
    brackets = torch.tensor([NO_BRACKET, INT32], dtype=torch.int32)
    rates = (torch.tensor(0.1), momentum, 0.01, momentum > 0, True)
    with path(name) as on:
        given = scores, [s + 1 for s in scores], momenta, survivors, *schemas, torch.tensor([7, 3]), brackets, *rates
        torch.library.opcheck(torch.ops.supermask.score_step.default, on(given))


def test_traces_for_a_gpu_without_one() -> None:
    with FakeTensorMode():
        theta = Theta(1, 0, 0, torch.ones(1, device="cuda"))
        scores = torch.ones(6, 5, 3, 3, device="cuda")
        brackets = torch.zeros(1, 2, dtype=torch.int32, device="cuda")
        kept = torch.ones(1, dtype=torch.int64, device="cuda")
        tau, last_tied = score_step([scores], [scores + 1], [None], [None], [theta], kept, brackets, lr=0.1)
    assert (tau.dtype, tau.shape, tau.device.type) == (torch.int32, (1,), "cuda")
    assert (last_tied.dtype, last_tied.shape, last_tied.device.type) == (torch.int64, (1,), "cuda")
