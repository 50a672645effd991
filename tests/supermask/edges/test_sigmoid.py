"""The sigmoid in integers: near the real one, rising, the same on every path."""

import math
from hashlib import sha256

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from supermask.edges.sigmoid import WHOLE, of_2_24, table

LEVELS = torch.tensor(table(), dtype=torch.int32)


def of(values: Tensor | list[float]) -> Tensor:
    return of_2_24(torch.as_tensor(values, dtype=torch.float32), LEVELS)


def test_the_table_is_this_one() -> None:
    """Masks depend on it: another table is another generator."""
    assert len(table()) == 8193
    assert table()[4096] == WHOLE // 2
    digest = sha256(np.array(table(), dtype="<i4").tobytes()).hexdigest()
    assert digest == "2cf3dc3866397e93cea3b4be84be3d61000bc948da4d34b5dc0c9359c9131a87"
    for number in range(0, 8193, 7):
        exact = WHOLE / (1 + math.exp(-(number - 4096) / 256))
        assert abs(table()[number] - exact) <= 0.5 + 1e-6
        assert table()[number] + table()[8192 - number] == WHOLE


@given(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=50))
def test_it_is_near_the_sigmoid_and_rises(values: list[float]) -> None:
    values = sorted(values)
    found = of(values).tolist()
    assert found == sorted(found)
    for value, integer in zip(values, found, strict=True):
        exact = WHOLE / (1 + math.exp(-value))
        assert abs(integer - exact) <= 8


def test_it_is_near_the_sigmoid_at_dense_numbers() -> None:
    """Between 1/4 and 2 the slope is large, and float32 has more digits than the table reads."""
    values = torch.rand(200_000, generator=torch.Generator().manual_seed(0)) * 1.75 + 0.25
    apart = of(values).double() - WHOLE * torch.sigmoid(values.double())
    assert 5 < float(apart.abs().max()) <= 8


@given(st.floats(-17, 17, width=32))
def test_it_is_the_equation_in_whole_numbers(value: float) -> None:
    """By hand, in Python's integers."""
    x = math.floor(value * 2**20)
    i, f = divmod(x, 2**12)
    if value < -16:
        expected = 0
    elif value >= 16:
        expected = WHOLE
    else:
        low, high = table()[i + 4096], table()[i + 4097]
        expected = low + ((high - low) * f >> 12)
    assert of([value]).tolist() == [expected]


def test_its_ends() -> None:
    least = float(np.nextafter(np.float32(16), np.float32(0)))
    assert of([-math.inf, -17.0, -16.0, 0.0, -0.0, 16.0, 99.0, math.inf, math.nan]).tolist() == [
        0, 0, table()[0], WHOLE // 2, WHOLE // 2, WHOLE, WHOLE, WHOLE, 0,
    ]  # fmt: skip
    assert table()[8191] <= of([least]).item() <= table()[8192] < WHOLE
