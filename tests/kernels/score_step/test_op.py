"""score_step against torch.optim.SGD and a selection from scratch, to the bit on every path, whatever the brackets.

To the bit where torch adds with a fused multiply-add, as it does on every processor with AVX2.
"""

import ctypes
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from supermask.kernels.base import launch as _launch
from supermask.kernels.base import native
from supermask.kernels.base.keys import NAN_KEY, score_keys
from supermask.kernels.base.launch import launcher
from supermask.kernels.base.theta import Theta
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from supermask.kernels.select.op import select
from tests.kernels.cases import SOURCES, theta_of, theta_plain
from tests.kernels.paths import PATHS, SEEDS, guarded, pack_plain, path, random_mask, random_reals, same, unpack_plain

INT32 = -(2**31), 2**31 - 1
NUMBERS = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How scores are stepped."""

    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    absolute: bool = True


@dataclass(kw_only=True)
class Layer:
    """One layer, and what a step changes."""

    scores: Tensor
    theta: Theta
    kept: int
    survivors: Tensor | None = None
    bracket: tuple[int, int] = NO_BRACKET
    momentum: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.momentum = torch.full_like(self.scores, -0.0)

    @property
    def sizes(self) -> tuple[int, int]:
        return self.scores.shape[0], self.scores.numel() // self.scores.shape[0]

    def fresh(self) -> "Layer":
        return replace(self, scores=self.scores.clone())


def steps_of(layers: list[Layer], rule: Rule, grads: list[list[Tensor]], name: str) -> Iterator[list[Tensor]]:
    """After each step, for each layer: scores, momentum, tau, last_tied; then the brackets."""
    layers = [layer.fresh() for layer in layers]
    brackets = torch.tensor([layer.bracket for layer in layers], dtype=torch.int32)
    kept = torch.tensor([layer.kept for layer in layers])
    survivors = [layer.survivors for layer in layers]
    for incoming in grads:
        with path(name), guarded():
            tau, last_tied = score_step(
                [layer.scores for layer in layers],
                incoming,
                [layer.momentum if rule.momentum else None for layer in layers],
                survivors,
                [layer.theta for layer in layers],
                kept,
                brackets,
                **vars(rule),
            )
        states = [layer.scores for layer in layers] + [layer.momentum for layer in layers if rule.momentum]
        yield [tensor.clone() for tensor in (*states, tau, last_tied, brackets)]


def plain_steps(layers: list[Layer], rule: Rule, grads: list[list[Tensor]]) -> Iterator[list[Tensor]]:
    """The same from torch.optim.SGD, one tensor at a time, and a selection of all scores."""
    scores = [torch.nn.Parameter(layer.scores.clone()) for layer in layers]
    sgd = torch.optim.SGD(
        scores,
        lr=rule.lr,
        momentum=rule.momentum,
        weight_decay=rule.weight_decay,
        nesterov=rule.nesterov,
        foreach=False,
    )
    kept = torch.tensor([layer.kept for layer in layers])
    survivors = [layer.survivors for layer in layers]
    for incoming in grads:
        for s, layer, grad in zip(scores, layers, incoming, strict=True):
            matrix = s.detach().view(layer.sizes)
            g = grad.view(layer.sizes) * theta_plain(layer.theta, *layer.sizes)
            g = torch.where(matrix < 0, -g, g) if rule.absolute else g
            if layer.survivors is not None:
                g = torch.where(unpack_plain(layer.survivors, layer.sizes[1]), g, 0.0)
            s.grad = g.view(s.shape)
        sgd.step()
        with path("torch"):
            threshold = select(scores, kept, survivors, rule.absolute)
        momenta = [sgd.state[s]["momentum_buffer"] for s in scores if rule.momentum]
        yield [tensor.detach().clone() for tensor in (*scores, *momenta, *threshold)]


RULES = st.builds(
    Rule,
    lr=st.sampled_from([0.0, 0.1, 1.0, 3e-5]),
    momentum=st.sampled_from([0.0, 0.9]),
    weight_decay=st.sampled_from([0.0, 5e-4, 1.0]),
    absolute=st.booleans(),
) | st.builds(
    Rule, momentum=st.sampled_from([0.9, 0.5]), weight_decay=st.sampled_from([0.0, 0.1]), nesterov=st.just(True)
)
SHAPES = st.sampled_from([(1, 1), (3, 43), (2, 129), (33, 7), (1, 257), (2, 5, 3, 3), (300,), (129, 2), (2, 128)])
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
    rule=RULES,
    data=st.integers(0, 2**31),
    special=st.sampled_from([0.0, 0.3]),
)
def test_a_launched_step_is_that_of_torch_and_a_selection(
    *, layers: list[Layer], rule: Rule, data: int, special: float
) -> None:
    check_steps(layers, rule, data, special, "triton")


@contextmanager
def counted() -> Iterator[list[list[int]]]:
    """For each call on the Triton path, of each layer the number of edges that the select was made to count."""
    calls: list[list[int]] = []

    def start(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], meta: dict[str, Any]) -> None:
        _launch._start(kernel, grid, args, meta)
        if kernel.__name__ == "_score_source_kernel":
            calls.append(args[4].view(grid[0], -1)[:, 2].tolist())

    with launcher(start):
        yield calls


def steered(targets: list[Tensor], *, absolute: bool, **changes: Any) -> tuple[Layer, Rule, list[list[Tensor]]]:
    """A layer whose scores come to be `targets`, one after the other (where their differences are exact)."""
    rows, cols = targets[0].shape
    theta = Theta(0, 0, 0, torch.ones(1), signs=torch.zeros(rows, 4 * -(-cols // 128), dtype=torch.int32))
    layer = Layer(scores=targets[0], theta=theta, kept=changes.pop("kept", targets[0].numel() // 2), **changes)
    grads = []
    for now, then in pairwise(targets):
        grads.append([(now - then) * (torch.where(now < 0, -1.0, 1.0) if absolute else 1.0)])
    return layer, Rule(lr=1.0, absolute=absolute), grads


ROWS, COLS = SIZES = 3, 128  # two tiles in the interpreter
EDGES = ROWS * COLS
ROOM = EDGES // 16 + 16  # there


def spread(seed: int = 0) -> Tensor:
    """Multiples of 2**-10, so that sums are exact; some tie."""
    return (random_reals(SIZES, seed) * 1024).round() / 1024


def some(density: float) -> Tensor:
    return pack_plain(random_mask(*SIZES, density, 3))


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


@pytest.mark.parametrize("absolute", [True, False])
def test_a_kept_bracket_leaves_little_to_count(absolute: bool) -> None:
    scores = random_reals((16, 128), 0)
    moves = [scores + step / 512 * random_reals((16, 128), 1) for step in range(4)]
    survivors = pack_plain(random_mask(16, 128, 0.8, 4)) if absolute else None
    layer, rule, grads = steered(moves, absolute=absolute, kept=600 if absolute else 1024, survivors=survivors)
    with counted() as calls:
        for (_, tau, last_tied, _), (_, *threshold) in zip(
            steps_of([layer], rule, grads, "triton"), plain_steps([layer], rule, grads), strict=True
        ):
            assert all(map(torch.equal, (tau, last_tied), threshold))
    (first,), *rest = calls
    assert first == scores.numel()
    assert all(10 <= count <= scores.numel() // 16 + 16 for (count,) in rest)


def brackets_around(scores: Tensor, kept: int) -> dict[str, tuple[tuple[int, int], bool]]:
    """Brackets of raw scores, and whether the threshold can be found in them."""
    keys = score_keys(scores, absolute=False).flatten().sort(descending=True).values.tolist()
    tau = keys[kept - 1]
    return {
        "tau alone": ((tau, tau), True),
        "tau lowest": ((tau, keys[kept - 20]), True),
        "tau highest": ((keys[kept + 20], tau), True),
        "just above": ((tau + 1, keys[kept - 20]), False),
        "just below": ((keys[kept + 20], tau - 1), False),
        "as many as there is room for": ((keys[kept + 5], keys[kept + 6 - ROOM]), True),
        "one too many": ((keys[kept + 5], keys[kept + 5 - ROOM]), False),
        "everything": (INT32, False),
        "nothing": (NO_BRACKET, False),
        "crossed": ((INT32[1], INT32[0]), False),
        "lowest key": ((INT32[0], INT32[0]), False),
    }


SCORES = torch.randperm(EDGES, generator=torch.Generator().manual_seed(1)).float().view(SIZES) - EDGES // 2


@pytest.mark.parametrize("which", brackets_around(SCORES, 100))
def test_any_bracket_gives_the_same_threshold(which: str) -> None:
    bracket, hit = brackets_around(SCORES, 100)[which]
    layer, rule, grads = steered([SCORES] * 2, absolute=False, kept=100, bracket=bracket)
    with counted() as calls:
        (found,) = steps_of([layer], rule, grads, "triton")
    (expected,) = plain_steps([layer], rule, grads)
    assert all(map(same, found[:-1], expected))
    inside = int(((score_keys(SCORES, False) >= bracket[0]) & (score_keys(SCORES, False) <= bracket[1])).sum())
    assert calls == [[inside if hit else EDGES]]


def test_removed_edges_do_not_fill_the_bracket() -> None:
    """All scores tie, and the few survivors fit where all edges would not."""
    survivors = some(0.05)
    alive = int(unpack_plain(survivors, COLS).sum())
    layer, rule, grads = steered([torch.ones(SIZES)] * 2, absolute=True, kept=alive - 3, survivors=survivors)
    layer.bracket = (0, INT32[1])
    with counted() as calls:
        (found,) = steps_of([layer], rule, grads, "triton")
    (expected,) = plain_steps([layer], rule, grads)
    assert all(map(same, found[:-1], expected))
    assert calls == [[alive]]


BRACKETING = ["triton", "native"] if native.usable() else ["triton"]


@pytest.mark.parametrize("name", BRACKETING)
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_next_bracket_holds_tau_and_about_one_in_fifty(rate: float, absolute: bool, name: str) -> None:
    scores = random_reals((16, 128), 5)
    edges = scores.numel()
    layer, rule, grads = steered([scores, scores, scores], absolute=absolute, kept=round(rate * edges))
    for _, tau, _, brackets in steps_of([layer], rule, grads, name):
        ((low, high),) = brackets.tolist()
        keys = score_keys(scores, absolute)
        above, below = int(((keys > tau) & (keys <= high)).sum()), int(((keys < tau) & (keys >= low)).sum())
        assert low <= int(tau) <= high
        assert edges / 250 < above < edges / 20
        assert edges / 250 < below < edges / 20


@pytest.mark.parametrize("name", BRACKETING)
def test_fewer_survivors_than_kept_leave_no_bracket(name: str) -> None:
    survivors = some(0.3)
    layer, rule, grads = steered([spread()] * 3, absolute=True, kept=200, survivors=survivors)
    layer.bracket = INT32
    for _, tau, last_tied, brackets in steps_of([layer], rule, grads, name):
        assert (int(tau), int(last_tied), brackets.tolist()) == (NAN_KEY, EDGES - 1, [list(NO_BRACKET)])


@pytest.mark.parametrize("kept", [-5, 0, EDGES + 1, 10**6])
def test_unchecked_counts_stay_inside_the_layer(kept: int) -> None:
    """A GPU does not look at `kept`; what is out of range must still give what the select gives."""
    layer, rule, grads = steered([spread()] * 3, absolute=True, kept=kept)
    with path("triton"):
        expected = select([spread()], torch.tensor([kept]), [None])
    for _, tau, last_tied, _ in steps_of([layer], rule, grads, "triton"):
        assert torch.equal(tau, expected[0])
        assert torch.equal(last_tied, expected[1])


@pytest.mark.parametrize("name", ["torch", "native"])
def test_a_count_out_of_range_is_named_before_anything_changes(name: str) -> None:
    layer, rule, grads = steered([spread(), spread() + 1], absolute=True, kept=EDGES + 1)
    before = layer.scores.clone()
    with path(name), pytest.raises(ValueError, match=r"layer 0: kept is 385.*1 to 384"):
        arguments(layer.scores, grads[0][0], kept=torch.tensor([EDGES + 1]), rule=rule)()
    assert torch.equal(layer.scores, before)


def test_signs_are_drawn_once_for_all_layers() -> None:
    """Where a program draws for many rows, for part of one, and for parts of several."""
    shapes = [(67, 3), (1, 4500), (3, 2100), (2, 40)]
    sources = ["seed", "seed", "seed", "base"]
    layers = [
        Layer(scores=torch.zeros(s), theta=theta_of(*s, source), kept=1)
        for s, source in zip(shapes, sources, strict=True)
    ]
    drawn: list[Tensor] = []

    def start(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], meta: dict[str, Any]) -> None:
        if kernel.__name__ != "_score_signs_kernel":
            return
        _launch._start(kernel, grid, args, meta)
        for (rows, cols), address in zip(shapes, args[0].view(len(shapes), -1)[:, 2].tolist(), strict=True):
            size = rows * 4 * -(-cols // 128) if address else 0
            words = list((ctypes.c_int32 * size).from_address(address)) if address else []
            drawn.append(torch.tensor(words, dtype=torch.int32).view(rows, -1))

    with launcher(start):
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
    assert len(launches(9, "seed")) == 9
    assert len(launches(9, "base")) == 8


@pytest.mark.parametrize("name", PATHS)
def test_no_layers(name: str) -> None:
    with path(name):
        tau, last_tied = score_step(
            [], [], [], [], [], torch.empty(0, dtype=torch.int64), torch.empty(0, 2, dtype=torch.int32), lr=0.1
        )
    assert tau.shape == last_tied.shape == (0,)


def test_parameters_are_stepped_in_place() -> None:
    """And what they were saved for knows."""
    scores = torch.nn.Parameter(spread())
    version = scores._version
    with path("torch"):
        arguments(scores, torch.ones(SIZES))()
    assert scores._version > version
    assert not torch.equal(scores, spread())


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
    rates = (0.1, momentum, 0.01, momentum > 0, True)
    with path(name):
        torch.library.opcheck(
            torch.ops.supermask.score_step.default,
            (scores, [s + 1 for s in scores], momenta, survivors, *schemas, torch.tensor([7, 3]), brackets, *rates),
        )


def test_traces_for_a_gpu_without_one() -> None:
    with FakeTensorMode():
        theta = Theta(1, 0, 0, torch.ones(1, device="cuda"))
        scores = torch.ones(6, 5, 3, 3, device="cuda")
        brackets = torch.zeros(1, 2, dtype=torch.int32, device="cuda")
        kept = torch.ones(1, dtype=torch.int64, device="cuda")
        tau, last_tied = score_step([scores], [scores + 1], [None], [None], [theta], kept, brackets, lr=0.1)
    assert (tau.dtype, tau.shape, tau.device.type) == (torch.int32, (1,), "cuda")
    assert (last_tied.dtype, last_tied.shape, last_tied.device.type) == (torch.int64, (1,), "cuda")


def test_columns_beyond_32_bits_are_refused() -> None:
    with FakeTensorMode():
        scores = torch.ones(1, 2**31)
        changes: dict[str, Any] = {
            "kept": torch.ones(1, dtype=torch.int64),
            "brackets": torch.ones(1, 2, dtype=torch.int32),
        }
        with pytest.raises(ValueError, match=r"layer 0: 2147483648 columns"):
            arguments(scores, scores, thetas=[Theta(0, 0, 0, torch.ones(1))], **changes)()


def arguments(scores: Tensor, grad: Tensor, *, rule: Rule | None = None, **changes: Any) -> Callable[[], Any]:
    """A call for one layer, with `changes`."""
    given: dict[str, Any] = {
        "momenta": [None],
        "survivors": [None],
        "thetas": [theta_of(ROWS, COLS, "seed")],
        "kept": torch.tensor([100]),
        "brackets": torch.tensor([NO_BRACKET], dtype=torch.int32),
        **vars(rule or Rule()),
        **changes,
    }
    return lambda: score_step([scores], [grad], **given)


ONES = torch.ones(SIZES)


@pytest.mark.parametrize(
    ("scores", "grad", "changes", "error", "said"),
    [
        (ONES.double(), ONES, {}, TypeError, r"layer 0.*float64.*float32"),
        (ONES.t(), ONES.t(), {}, ValueError, r"layer 0.*\(1, 128\).*contiguous"),
        (ONES, ONES.double(), {}, TypeError, r"layer 0: the gradient is torch.float64"),
        (ONES, ONES.view(128, 3), {}, ValueError, r"layer 0: the gradient has shape \(128, 3\).*\(3, 128\)"),
        (ONES, ONES.view(128, 3).t(), {}, ValueError, r"layer 0: the gradient.*strides \(1, 3\).*contiguous"),
        (ONES, ONES.to("meta"), {}, ValueError, r"layer 0: the gradient.*meta.*cpu"),
        (ONES, ONES, {"momentum": 0.9}, ValueError, r"layer 0: momentum is 0.9 and its buffer None"),
        (ONES, ONES, {"momenta": [ONES]}, ValueError, r"layer 0: momentum is 0.0 and its buffer given"),
        (ONES, ONES, {"momentum": 0.9, "momenta": [ONES.half()]}, TypeError, r"layer 0: the momentum is torch.float16"),
        (ONES, ONES, {"momenta": []}, ValueError, r"1 layers of scores.*'momenta': 0"),
        (ONES, ONES, {"kept": torch.tensor([1, 2])}, ValueError, r"1 layers of scores.*'kept': 2"),
        (ONES, ONES, {"kept": torch.tensor([1.0])}, TypeError, r"kept is torch.float32.*int64"),
        (ONES, ONES, {"brackets": torch.zeros(1, 2)}, TypeError, r"brackets is torch.float32.*int32"),
        (ONES, ONES, {"brackets": torch.zeros(2, 2).int()}, ValueError, r"brackets has shape \(2, 2\).*\(1, 2\)"),
        (ONES, ONES, {"survivors": [torch.zeros(ROWS, 8).int()]}, ValueError, r"layer 0: survivors.*\(3, 8\)"),
        (ONES, ONES, {"thetas": [theta_of(ROWS, 129, "base")]}, ValueError, r"theta.base.*\(3, 129\)"),
        (
            ONES,
            ONES,
            {"thetas": [theta_of(ROWS, 4, "seed")._replace(real=("normal", 1.0))]},
            ValueError,
            r"normal.*base",
        ),
        (ONES, ONES, {"thetas": [Theta(0, 0, 0, torch.ones(2))]}, ValueError, r"theta.constant has shape \(2,\)"),
        (ONES, ONES, {"lr": -0.1}, ValueError, r"'lr': -0.1.*below 0"),
        (ONES, ONES, {"weight_decay": -1.0}, ValueError, r"'weight_decay': -1.0.*below 0"),
        (ONES, ONES, {"nesterov": True}, ValueError, r"nesterov True.*momentum"),
    ],
)
def test_bad_input_is_named(
    scores: Tensor, grad: Tensor, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        arguments(scores, grad, **changes)()
