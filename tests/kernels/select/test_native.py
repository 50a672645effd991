"""Selecting through the C extension, on layers of many chunks."""

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from supermask.kernels.select.op import select
from tests.kernels.native_cases import COUNTS, KINDS, SHAPES, on_both, scores_like
from tests.kernels.paths import pack_plain, random_mask, random_reals


@given(
    layers=st.lists(st.tuples(st.sampled_from(SHAPES), KINDS, st.booleans()), min_size=1, max_size=3),
    rate=st.sampled_from([1e-4, 0.03, 0.3, 0.5, 0.97, 1.0]),
    absolute=st.booleans(),
    count=COUNTS,
    data=st.integers(0, 2**31),
)
def test_select(layers: list[Any], rate: float, absolute: bool, count: int, data: int) -> None:
    scores = [scores_like(shape, kind, data + i) for i, (shape, kind, _) in enumerate(layers)]
    kept = torch.tensor([max(1, round(rate * s.numel())) for s in scores])
    survivors = [
        pack_plain(random_mask(s.shape[0], s.numel() // s.shape[0], 0.6, data + 7)) if pruned else None
        for s, (_, _, pruned) in zip(scores, layers, strict=True)
    ]
    found, expected = on_both(lambda: select(scores, kept, survivors, absolute), count)
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
