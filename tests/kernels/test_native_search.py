"""The C extension's search against the PyTorch path, on layers of many chunks, with any number of threads.

Small shapes and odd values are the property tests' of each op, which take every path (tests/kernels/paths.py).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.theta import Theta
from supermask.kernels.packed_weight.op import packed_weight
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from supermask.kernels.select.op import select
from supermask.kernels.subnet.op import subnet
from tests.kernels.cases import theta_of
from tests.kernels.paths import guarded, pack_plain, path, random_mask, random_reals, random_words, same

# Less than a chunk of 16,384 edges; several; rows longer than one; more edges than have room for all their keys.
SHAPES = [(1, 1), (130, 257), (3, 20_000), (1, 50_001), (90, 1_000), (700, 129), (64, 64, 3, 3)]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def on_both(call: Any) -> tuple[Any, Any]:
    with path("torch"):
        expected = call()
    with path("native"), guarded():
        return call(), expected


def scores_like(shape: tuple[int, ...], kind: str, data: int) -> Tensor:
    scores = random_reals(shape, data)
    flat = scores.view(-1)
    if kind == "special":
        return random_reals(shape, data, special=0.2)
    if kind == "equal":
        return torch.full(shape, -0.25)
    if kind == "few values":
        return (scores * 2).round() / 2
    if kind == "two halves":  # a sample of the one says nothing of the other
        flat[: flat.numel() // 2] *= 1e-6
    if kind == "periodic":  # and every stride has its period
        flat.copy_(torch.arange(flat.numel()).remainder(7).float())
    return scores


KINDS = st.sampled_from(["normal", "special", "equal", "few values", "two halves", "periodic"])


@given(
    layers=st.lists(st.tuples(st.sampled_from(SHAPES), KINDS, st.booleans()), min_size=1, max_size=3),
    rate=st.sampled_from([1e-4, 0.03, 0.3, 0.5, 0.97, 1.0]),
    absolute=st.booleans(),
    count=st.sampled_from([1, 2, 5]),
    data=st.integers(0, 2**31),
)
def test_select(layers: list[Any], rate: float, absolute: bool, count: int, data: int) -> None:
    torch.set_num_threads(count)
    scores = [scores_like(shape, kind, data + i) for i, (shape, kind, _) in enumerate(layers)]
    kept = torch.tensor([max(1, round(rate * s.numel())) for s in scores])
    survivors = [
        pack_plain(random_mask(s.shape[0], s.numel() // s.shape[0], 0.6, data + 7)) if pruned else None
        for s, (_, _, pruned) in zip(scores, layers, strict=True)
    ]
    found, expected = on_both(lambda: select(scores, kept, survivors, absolute))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_a_misleading_sample_costs_time_alone() -> None:
    """Scores that a sample at any stride below a thousand misses: the bracket fails and all digits are counted."""
    scores = torch.zeros(400, 1000)
    scores.view(-1)[torch.randperm(400_000, generator=torch.Generator().manual_seed(3))[:2000]] = random_reals(
        (2000,), 1
    )
    for kept in (1, 700, 1999, 2000, 2001, 200_000):
        found, expected = on_both(lambda kept=kept: select([scores], torch.tensor([kept]), [None]))
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


@given(
    shape=st.sampled_from(SHAPES),
    source=st.sampled_from(["signs", "seed", "base"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    absolute=st.booleans(),
    extras=st.booleans(),
    place=st.floats(0, 1),
    count=st.sampled_from([1, 2, 5]),
    data=st.integers(0, 2**31),
)
def test_subnet_and_its_backward(
    shape: tuple[int, ...], source: str, dtype: torch.dtype, absolute: bool, extras: bool, place: float, count: int,
    data: int,
) -> None:  # fmt: skip
    torch.set_num_threads(count)
    rows = shape[0]
    scores = random_reals(shape, data, special=0.05)
    edges = scores.numel()
    cols = edges // rows
    theta = theta_of(rows, cols, source, data=data)
    survivors = pack_plain(random_mask(rows, cols, 0.6, data)) if extras else None
    tau = scores.abs().nan_to_num().view(torch.int32).flatten()[int(place * (edges - 1))].view(1)
    grad = random_reals(shape, data + 1, special=0.05).to(dtype)

    def run() -> list[Tensor]:
        ever = random_words(rows, cols, data) if extras else None
        leaf = scores.clone().requires_grad_()
        last = torch.tensor([int(place * edges) - 1])
        settings: dict[str, Any] = {"survivors": survivors, "absolute": absolute, "dtype": dtype, "ever": ever}
        weight, mask = subnet(leaf, tau, last, theta, **settings)
        weight.backward(grad)
        assert leaf.grad is not None
        return [weight.detach(), mask, leaf.grad, *([ever] if ever is not None else [])]

    for one, other in zip(*on_both(run), strict=True):
        assert same(one, other)


@given(
    shape=st.sampled_from(SHAPES),
    source=st.sampled_from(["signs", "seed", "base"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    count=st.sampled_from([1, 2, 5]),
    data=st.integers(0, 2**31),
)
def test_packed_weight(shape: tuple[int, ...], source: str, dtype: torch.dtype, count: int, data: int) -> None:
    torch.set_num_threads(count)
    rows, cols = shape[0], torch.Size(shape[1:]).numel()
    theta, mask = theta_of(rows, cols, source, data=data), pack_plain(random_mask(rows, cols, 0.3, data))
    assert same(*on_both(lambda: packed_weight(mask, shape, theta, dtype)))


@given(
    shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3),
    kind=KINDS,
    source=st.sampled_from(["signs", "seed", "base"]),
    rate=st.sampled_from([1e-4, 0.03, 0.3, 0.97]),
    absolute=st.booleans(),
    pruned=st.booleans(),
    jump=st.sampled_from([0.0, 1e-4, 1e-2, 10.0]),
    momentum=st.sampled_from([0.0, 0.9]),
    count=st.sampled_from([1, 2, 5]),
    data=st.integers(0, 2**31),
)
def test_score_steps(
    shapes: Sequence[tuple[int, ...]], kind: str, source: str, rate: float, absolute: bool, pruned: bool, jump: float,
    momentum: float, count: int, data: int,
) -> None:  # fmt: skip
    """Three steps with one bracket: scores and momenta as the PyTorch path has them, thresholds as a cold selection."""
    torch.set_num_threads(count)
    places = [(shape[0], torch.Size(shape[1:]).numel()) for shape in shapes]
    thetas: list[Theta] = [theta_of(*place, source, data=data) for place in places]
    survivors = [pack_plain(random_mask(*place, 0.6, data)) if pruned else None for place in places]
    kept = torch.tensor([max(1, round(rate * rows * cols)) for rows, cols in places])

    def run() -> list[Tensor]:
        scores = [scores_like(shape, kind, data + i) for i, shape in enumerate(shapes)]
        momenta = [torch.full_like(s, -0.0) if momentum else None for s in scores]
        brackets = torch.tensor([NO_BRACKET] * len(scores), dtype=torch.int32)
        found: list[Tensor] = []
        for step in range(3):
            grads = [jump * random_reals(shape, data + 100 * step + i) for i, shape in enumerate(shapes)]
            settings: dict[str, Any] = {"lr": 1.0, "momentum": momentum, "weight_decay": 1e-3, "nesterov": False}
            tau, last = score_step(
                scores, grads, momenta, survivors, thetas, kept, brackets, **settings, absolute=absolute
            )
            found += [tau, last, *(s.clone() for s in scores), *(v.clone() for v in momenta if v is not None)]
        return found

    for one, other in zip(*on_both(run), strict=True):
        assert same(one, other)


def test_a_bracket_saves_reading_and_never_lies() -> None:
    """Whatever two keys the caller gives, the threshold is that of the scores."""
    scores = random_reals((300, 300), 1)
    theta = theta_of(300, 300, "signs")
    kept = torch.tensor([27_000])
    for low, high in [(0, -1), (1, 0), (0, 0), (2**31 - 1, 2**31 - 1), (-(2**31), 2**31 - 1), (-(2**31), 5), (5, -5)]:
        given_scores = [scores.clone()]
        brackets = torch.tensor([[low, high]], dtype=torch.int32)
        settings: dict[str, Any] = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False}
        for step in range(3):
            grad = [random_reals((300, 300), 5 + step)]
            with path("native"):
                found = score_step(
                    given_scores, grad, [None], [None], [theta], kept, brackets, **settings, absolute=True
                )
            with path("torch"):
                expected = select(given_scores, kept, [None])
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])
            if step and native.usable():  # the PyTorch path leaves brackets alone
                low_key, high_key = brackets[0].tolist()
                assert low_key <= int(found[0]) <= high_key
                inside = scores.numel() // 4
                keys = given_scores[0].abs().view(torch.int32)
                assert int(((keys >= low_key) & (keys <= high_key)).sum()) < inside
