"""masked_mm on CPU, by tables, by blocks and traced, is the dense product of the plain weights; codes are the bits."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.philox import sign_words
from supermask.kernels.base.planes import Planes
from supermask.kernels.base.theta import Theta
from supermask.kernels.masked_mm import cpu as module
from supermask.kernels.masked_mm.codes import check_codes, codes_shape, deinterleave, interleave
from supermask.kernels.masked_mm.cpu import (
    masked_mm_backward_cpu,
    masked_mm_cpu,
    masked_mm_traced,
    prefers_tables,
    prefers_traced,
)
from supermask.kernels.masked_mm.op import reference
from tests.kernels.paths import guarded, pack_plain, random_mask, random_words, unpack_plain

EDGES = [1, 2, 15, 16, 17, 18, 19, 63, 64, 65, 97, 127, 128, 129, 131, 143, 144, 145, 257]
SIZES = st.sampled_from(EDGES) | st.integers(1, 300)
DENSITIES = st.sampled_from([0.0, 0.05, 0.5, 0.97, 1.0])
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def small_blocks() -> Any:
    """The layers of these tests take several blocks. Their size is private: how fast they are is all that it changes,
    so none but tests set it."""
    return mock.patch.object(module, "_BLOCK", 40000)  # bytes


@contextmanager
def way(name: str) -> Iterator[None]:
    """Everything by "tables" or by "blocks" of the extension, or by "blocks without" it."""
    with pytest.MonkeyPatch.context() as patch, guarded(), small_blocks():
        patch.setenv("SUPERMASK_KERNELS", "torch" if name == "blocks without" else "native")
        patch.setattr(module, "prefers_tables", lambda *_: name == "tables")
        yield


WAYS = ["tables", "blocks", "blocks without"] if native.usable() else ["blocks without"]
THREADS = [1, 2, 5]


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Layer:
    """A layer's bits, its weights as plain numbers, and the products of it."""

    def __init__(self, rows: int, cols: int, density: float, *, constant: float = 0.1, coats: int = 1, data: int = 0):
        masks = [random_mask(rows, cols, density, data + coat) for coat in range(coats)]
        self.mask = torch.stack([pack_plain(mask) for mask in masks])
        self.signs, self.flips = random_words(rows, cols, data + 10), random_words(rows, cols, data + 11)
        self.constant = torch.tensor([constant])
        negative = unpack_plain(self.signs ^ self.flips, cols)
        self.weight = torch.stack(masks).double().sum(0) * torch.where(negative, -1, 1)
        self.codes = interleave(self.mask[0], self.signs ^ self.flips, cols) if coats == 1 else None

    @property
    def planes(self) -> Planes:
        return Planes(self.mask, Theta(0, 0, 0, self.constant, self.signs), self.flips)

    def times(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return masked_mm_cpu(x, self.planes, self.codes, bias)

    def traced(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return masked_mm_traced(x, self.planes, bias)

    def dense(self, x: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        weight = (self.weight * self.constant.double()).to(dtype)
        return torch.nn.functional.linear(x.to(dtype), weight, None if bias is None else bias.to(dtype))


def check(found: Tensor, layer: Layer, x: Tensor, bias: Tensor | None = None) -> None:
    exact = layer.dense(x, bias, torch.float64)
    assert (found.dtype, found.shape) == (x.dtype, exact.shape)
    close(found, layer.dense(x, bias, x.dtype), exact)


def close(found: Tensor, theirs: Tensor, exact: Tensor) -> None:
    """At most twice PyTorch's own error; where that happens to be none, two roundings of the largest number's size."""
    few = 100 if found.dtype is torch.float64 else 1  # whose own error, against itself, is none
    floor = few * torch.finfo(found.dtype).eps * exact.abs().max()
    assert (found.double() - exact).abs().max() <= 2 * (theirs.double() - exact).abs().max() + floor


def reals(n: int, cols: int, dtype: torch.dtype, data: int) -> Tensor:
    return torch.randn(n, cols, generator=torch.Generator().manual_seed(data)).to(dtype)


@settings(max_examples=60)
@given(rows=SIZES, cols=SIZES, density=DENSITIES, data=st.integers(0, 2**31))
def test_codes_hold_the_bits(*, rows: int, cols: int, density: float, data: int) -> None:
    mask, signs = pack_plain(random_mask(rows, cols, density, data)), random_words(rows, cols, data)
    codes = interleave(mask, signs, cols)
    check_codes(codes, rows, cols)
    found = deinterleave(codes, rows, cols)
    assert torch.equal(found[0], mask)
    assert torch.equal(found[1], signs & mask)


def test_codes_are_where_they_are_said_to_be() -> None:
    rows, cols = 83, 37  # a band of 64 rows, and one of two vectors; three lanes a row
    bits = [random_mask(rows, cols, 0.5, data) for data in (1, 2)]
    codes = interleave(*(pack_plain(plane) for plane in bits), cols).flatten()
    assert codes.numel() == math.prod(codes_shape(rows, cols)) == 6 * 16 * 3
    for row, col in [(0, 0), (5, 17), (63, 36), (16, 18), (64, 36), (82, 31), (47, 8), (47, 9), (1, 35)]:
        band, vector, wide = row // 64, col // 18, 4 if row < 64 else 2
        word = int(codes[band * 4 * 16 * 3 + (vector * wide + row % 64 // 16) * 16 + row % 16])
        number = word >> 16 * (col % 18 // 9) + 5 * (col % 9 // 3) & 31
        mask, sign = (int(plane[row, col]) for plane in bits)
        assert number // 3 ** (col % 3) % 3 == mask + (mask & sign)


@pytest.mark.parametrize("name", WAYS)
@settings(max_examples=50)
@given(
    rows=SIZES,
    cols=SIZES,
    n=st.integers(1, 40),
    density=DENSITIES,
    dtype=st.sampled_from(DTYPES),
    with_bias=st.booleans(),
    count=st.sampled_from(THREADS),
    data=st.integers(0, 2**31),
)
def test_products_are_as_exact_as_pytorchs(
    name: str,
    *,
    rows: int,
    cols: int,
    n: int,
    density: float,
    dtype: torch.dtype,
    with_bias: bool,
    count: int,
    data: int,
) -> None:
    layer = Layer(rows, cols, density, data=data)
    x = reals(n, cols, dtype, data)
    bias = reals(1, rows, torch.float32, data + 1)[0] if with_bias else None
    with threads(count), way(name):
        found = layer.times(x, bias)
    check(found, layer, x, bias)


@pytest.mark.parametrize("name", WAYS)
@settings(max_examples=40)
@given(
    rows=SIZES,
    cols=SIZES,
    n=st.integers(1, 40),
    density=DENSITIES,
    coats=st.sampled_from([1, 1, 3]),
    dtype=st.sampled_from([*DTYPES, torch.float64]),
    data=st.integers(0, 2**31),
)
def test_whole_numbers_come_out_to_the_bit(
    name: str, *, rows: int, cols: int, n: int, density: float, coats: int, dtype: torch.dtype, data: int
) -> None:
    layer = Layer(rows, cols, density, constant=0.25, coats=coats, data=data)
    most = 1 if dtype is torch.bfloat16 else 3  # sums of 300 of them are exact in float16, and these in bfloat16
    x = torch.randint(-most, most + 1, (n, cols), generator=torch.Generator().manual_seed(data)).to(dtype)
    exact = (x.double() @ layer.weight.t()) * 0.25
    with way(name):
        found = layer.times(x)
    assert torch.equal(found, exact.to(dtype))


@pytest.mark.parametrize("name", WAYS)
def test_the_number_of_threads_changes_no_bit(name: str) -> None:
    layer, x = Layer(700, 300, 0.4), reals(5, 300, torch.float32, 1)
    with way(name):
        expected = layer.times(x)
        for count in THREADS:
            with threads(count):
                assert name != "tables" or torch.equal(layer.times(x), expected)
                check(layer.times(x), layer, x)


@pytest.mark.parametrize("name", WAYS)
def test_a_row_of_x_comes_out_the_same_in_any_company(name: str) -> None:
    layer, x = Layer(150, 400, 0.4), reals(67, 400, torch.float32, 1)
    with way(name):
        together = layer.times(x)
        for n in (1, 2, 3, 6):
            alone = layer.times(x[:n])
            check(alone, layer, x[:n])
            assert name != "tables" or torch.equal(alone, together[:n])


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_any_layout_and_number_of_dimensions(name: str, dtype: torch.dtype) -> None:
    layer = Layer(70, 130, 0.5)
    base = reals(2 * 130, 12, dtype, 1)
    for x in (base.t()[:, ::2], base.t()[:, :130].view(3, 4, 130), base[:130, 0], base.t()[:0, :130]):
        with way(name):
            found = layer.times(x)
        assert found.shape == (*x.shape[:-1], 70)
        if x.numel():
            check(found, layer, x)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_reaches_the_rows_that_have_the_edge(name: str, special: float) -> None:
    layer = Layer(40, 50, 0.5, constant=1.0)
    x = reals(3, 50, torch.float32, 1)
    x[1, 7] = special
    with way(name):
        found = layer.times(x)
    edge = layer.weight[:, 7]
    finite = found.isfinite()
    assert finite[[0, 2]].all()
    assert not finite[1, edge != 0].any()
    if name == "tables":
        assert finite[1, edge == 0].all()
        expected = special * edge[edge != 0].float()
        assert torch.equal(found[1, edge != 0].nan_to_num(0.5), expected.nan_to_num(0.5))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("coats", [1, 3])
def test_the_traced_form_eagerly(dtype: torch.dtype, coats: int) -> None:
    for rows, cols, n in [(1, 1, 1), (65, 129, 1), (30, 31, 3), (17, 256, 7)]:
        layer = Layer(rows, cols, 0.5, coats=coats)
        x, bias = reals(n, cols, dtype, 1), reals(1, rows, torch.float32, 2)[0]
        check(layer.traced(x, bias), layer, x, bias)
        check(layer.traced(x[0]), layer, x[0])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_traced_form_compiled(dtype: torch.dtype) -> None:
    layer, x = Layer(65, 129, 0.5), reals(3, 129, dtype, 1)
    check(torch.compile(layer.traced, fullgraph=True)(x), layer, x)


def test_signs_are_drawn_where_none_are_given() -> None:
    layer = Layer(20, 40, 0.5)
    x = reals(2, 40, torch.float32, 1)
    drawn = sign_words(7, 3, 20, 40, generation=1)
    theta = Theta(7, 3, 1, layer.constant)
    planes = Planes(layer.mask, theta, None)
    expected = masked_mm_cpu(x, planes._replace(theta=theta._replace(signs=drawn)), None, None)
    assert torch.equal(masked_mm_cpu(x, planes, None, None), expected)
    traced = masked_mm_traced(x, planes, None)
    assert torch.allclose(traced, expected, atol=1e-6)


@pytest.mark.parametrize("coats", [1, 3])
def test_the_equation_is_the_product_by_blocks(coats: int) -> None:
    layer, x = Layer(20, 150, 0.5, constant=0.25, coats=coats), reals(4, 150, torch.float64, 1)
    bias = reals(1, 20, torch.float64, 2)[0]
    for added in (None, bias):
        assert torch.allclose(reference(x, layer.planes, None, added), layer.times(x, added), rtol=1e-12, atol=1e-12)


@settings(max_examples=30)
@given(
    rows=SIZES,
    cols=SIZES,
    n=st.integers(1, 9),
    density=DENSITIES,
    coats=st.sampled_from([1, 2]),
    dtype=st.sampled_from([*DTYPES, torch.float64]),
    data=st.integers(0, 2**31),
)
def test_the_gradient_is_the_transposed_product(
    *, rows: int, cols: int, n: int, density: float, coats: int, dtype: torch.dtype, data: int
) -> None:
    layer = Layer(rows, cols, density, coats=coats, data=data)
    grad = reals(n, rows, dtype, data)
    with small_blocks():
        found = masked_mm_backward_cpu(grad, layer.planes, cols)
    weight = layer.weight * layer.constant.double()
    exact = grad.double() @ weight
    assert found.dtype is dtype
    close(found, grad @ weight.to(dtype), exact)


def test_codes_of_another_layer_are_refused() -> None:
    layer = Layer(20, 40, 0.5)
    layer.codes = Layer(20, 60, 0.5).codes
    with pytest.raises(ValueError, match=r"shape \(2, 64\).*20 x 40.*shape \(2, 48\)"):
        layer.times(torch.zeros(1, 40))


def test_codes_are_for_one_coat_and_for_the_extension() -> None:
    layer, x = Layer(20, 40, 0.5, coats=3), reals(2, 40, torch.float32, 1)
    layer.codes = interleave(layer.mask[0], layer.signs, 40)
    check(layer.times(x), layer, x)
    layer = Layer(20, 40, 0.5)
    with way("blocks without"), mock.patch.object(native, "function", side_effect=AssertionError):
        check(layer.times(x), layer, x)


def test_the_rules() -> None:
    assert all(prefers_tables(n, 4096, 4096, torch.float32) for n in (1, 8, 64, 1000))
    assert prefers_tables(64, 4096, 4096, torch.bfloat16)
    assert not prefers_tables(300, 4096, 4096, torch.bfloat16)
    assert not prefers_tables(300, 10, 512, torch.float32)
    assert not prefers_tables(64, 20000, 16, torch.bfloat16)
    assert not prefers_tables(1, 4096, 4096, torch.float64)
    x = torch.zeros(1, 40)
    assert prefers_traced(x)
    assert prefers_traced(x[0])
    assert not prefers_traced(x.expand(300, 40))


def test_an_x_that_needs_a_gradient_is_not_traced() -> None:
    layer, x = Layer(20, 40, 0.5), torch.zeros(1, 40, requires_grad=True)
    assert not prefers_traced(x)
    with pytest.raises(ValueError, match="requires a gradient"):
        layer.traced(x)
    with torch.no_grad():
        assert prefers_traced(x)
        layer.traced(x)
