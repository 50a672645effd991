"""Weights and gradients through the C extension, on layers of many chunks."""

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from supermask.kernels.base.keys import Threshold
from supermask.kernels.subnet.op import subnet
from tests.kernels.cases import theta_of
from tests.kernels.native_cases import COUNTS, SHAPES, on_both
from tests.kernels.paths import pack_plain, random_mask, random_reals, random_words, same


@given(
    shape=st.sampled_from(SHAPES),
    source=st.sampled_from(["signs", "seed", "base"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    absolute=st.booleans(),
    extras=st.booleans(),
    place=st.floats(0, 1),
    count=COUNTS,
    data=st.integers(0, 2**31),
)
def test_subnet_and_its_backward(
    shape: tuple[int, ...], source: str, dtype: torch.dtype, absolute: bool, extras: bool, place: float, count: int,
    data: int,
) -> None:  # fmt: skip
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
        weight, mask = subnet(leaf, Threshold(tau, last), theta, **settings)
        weight.backward(grad)
        assert leaf.grad is not None
        return [weight.detach(), mask, leaf.grad, *([ever] if ever is not None else [])]

    for one, other in zip(*on_both(run, count), strict=True):
        assert same(one, other)
