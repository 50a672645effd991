"""Weights from packed masks through the C extension, on layers of many chunks."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from supermask.kernels.packed_weight.op import packed_weight
from tests.kernels.cases import theta_of
from tests.kernels.native_cases import COUNTS, SHAPES, on_both
from tests.kernels.paths import pack_plain, random_mask, same


@given(
    shape=st.sampled_from(SHAPES),
    source=st.sampled_from(["signs", "seed", "base"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    count=COUNTS,
    data=st.integers(0, 2**31),
)
def test_packed_weight(shape: tuple[int, ...], source: str, dtype: torch.dtype, count: int, data: int) -> None:
    rows, cols = shape[0], torch.Size(shape[1:]).numel()
    theta, mask = theta_of(rows, cols, source, data=data), pack_plain(random_mask(rows, cols, 0.3, data))
    assert same(*on_both(lambda: packed_weight(mask, shape, theta, dtype), count))
