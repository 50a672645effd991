"""A bracket of keys saves reading: it holds tau and little else, and whatever it holds, the threshold is exact."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.keys import NAN_KEY, score_keys
from supermask.kernels.base.launch import launcher, start
from supermask.kernels.score_step.op import NO_BRACKET
from tests.kernels.paths import COMPILED, pack_plain, random_mask, random_reals, same, unpack_plain
from tests.kernels.score_step.steps import (
    COLS,
    EDGES,
    INT32,
    KEPT,
    SIZES,
    plain_steps,
    room,
    some,
    spread,
    steered,
    steps_of,
)  # fmt: skip


@contextmanager
def counted() -> Iterator[list[list[int]]]:
    """For each call on the Triton path, of each layer the number of edges that the select was made to count."""
    calls: list[list[int]] = []

    def count(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], meta: dict[str, Any]) -> None:
        start(kernel, grid, args, meta)
        if kernel.__name__ == "_score_source_kernel":
            calls.append(args[4].view(grid[0], -1)[:, 2].tolist())

    with launcher(count):
        yield calls


@pytest.mark.parametrize("absolute", [True, False])
def test_a_kept_bracket_leaves_little_to_count(absolute: bool) -> None:
    rows = 300 if COMPILED else 16
    scores = random_reals((rows, 128), 0)
    edges = scores.numel()
    moves = [scores + step / 512 * random_reals((rows, 128), 1) for step in range(4)]
    survivors = pack_plain(random_mask(rows, 128, 0.8, 4)) if absolute else None
    kept = int(0.3 * edges) if absolute else edges // 2
    layer, rule, grads = steered(moves, absolute=absolute, kept=kept, survivors=survivors)
    with counted() as calls:
        for (_, tau, last_tied, _), (_, *threshold) in zip(
            steps_of([layer], rule, grads, "triton"), plain_steps([layer], rule, grads), strict=True
        ):
            assert all(map(torch.equal, (tau, last_tied), threshold))
    (first,), *rest = calls
    assert first == edges
    assert all(10 <= count <= room(edges) for (count,) in rest)


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
        "as many as there is room for": ((keys[kept + 5], keys[kept + 6 - room(EDGES)]), True),
        "one too many": ((keys[kept + 5], keys[kept + 5 - room(EDGES)]), False),
        "everything": (INT32, False),
        "nothing": (NO_BRACKET, False),
        "crossed": ((INT32[1], INT32[0]), False),
        "lowest key": ((INT32[0], INT32[0]), False),
    }


SCORES = torch.randperm(EDGES, generator=torch.Generator().manual_seed(1)).float().view(SIZES) - EDGES // 2


@pytest.mark.parametrize("which", brackets_around(SCORES, KEPT))
def test_any_bracket_gives_the_same_threshold(which: str) -> None:
    bracket, hit = brackets_around(SCORES, KEPT)[which]
    layer, rule, grads = steered([SCORES] * 2, absolute=False, kept=KEPT, bracket=bracket)
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
    layer, rule, grads = steered([spread()] * 3, absolute=True, kept=EDGES // 2, survivors=survivors)
    layer.bracket = INT32
    for _, tau, last_tied, brackets in steps_of([layer], rule, grads, name):
        assert (int(tau), int(last_tied), brackets.tolist()) == (NAN_KEY, EDGES - 1, [list(NO_BRACKET)])
