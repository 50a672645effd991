"""packed_weight gives the bits of the searched layer's weights, from the mask alone, on every path."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from supermask.kernels.base.theta import Theta
from supermask.kernels.packed_weight.op import packed_weight
from supermask.kernels.select.op import select
from supermask.kernels.subnet.op import subnet
from tests.devices import On
from tests.kernels.cases import DTYPES, GENERATIONS, SHAPES, SOURCES, theta_of, theta_plain
from tests.kernels.paths import PATHS, SEEDS, every_path, pack_plain, path, random_mask, random_reals, same


@settings(max_examples=60)
@given(
    shape=SHAPES,
    source=st.sampled_from(SOURCES),
    seed=SEEDS,
    generation=GENERATIONS,
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    dtype=st.sampled_from(DTYPES),
    data=st.integers(0, 2**31),
)
def test_weights_are_the_plain_statement(
    *, shape: tuple[int, ...], source: str, seed: int, generation: int, density: float, dtype: torch.dtype, data: int
) -> None:
    rows, cols = shape[0], math.prod(shape[1:])
    theta = theta_of(rows, cols, source, seed=seed, generation=generation, data=data, special=0.1)
    mask = random_mask(rows, cols, density, data)
    expected = torch.where(mask, theta_plain(theta, rows, cols), 0.0).to(dtype).view(shape)
    for weight in every_path(lambda on: packed_weight(on(pack_plain(mask)), shape, on(theta), dtype)):
        assert same(weight, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_weights_are_the_searched_layers(source: str, dtype: torch.dtype) -> None:
    shape = (35, 15, 3, 3)
    theta = theta_of(35, 135, source)
    scores = random_reals(shape, 1, special=0.3)
    threshold = select([scores], torch.tensor([2000]), [None])

    def run(on: On) -> tuple[Tensor, Tensor]:
        searched, mask = subnet(*on((scores, threshold, theta)), dtype=dtype)
        return searched, packed_weight(mask, shape, on(theta), dtype)

    for searched, packed in every_path(run):
        assert same(packed, searched)
        assert packed.any()


def test_padding_bits_of_a_mask_make_no_weights() -> None:
    """Set ones end up nowhere, not in the next row either."""
    theta = theta_of(5, 131, "seed")
    expected = theta_plain(theta, 5, 131)
    full = torch.full((5, 8), -1, dtype=torch.int32)
    for weight in every_path(lambda on: packed_weight(on(full), (5, 131), on(theta))):
        assert same(weight, expected)


@pytest.mark.parametrize("source", SOURCES)
def test_compiled_equals_eager(source: str, on: On) -> None:
    theta = on(theta_of(5, 131, source))
    mask = on(pack_plain(random_mask(5, 131, 0.4, 3)))
    compiled = torch.compile(
        lambda mask: packed_weight(mask, (5, 131), theta, torch.bfloat16), fullgraph=True, backend="aot_eager"
    )
    assert same(compiled(mask), packed_weight(mask, (5, 131), theta, torch.bfloat16))


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("source", SOURCES)
def test_opcheck(source: str, name: str) -> None:
    theta = theta_of(5, 131, source)
    args = pack_plain(random_mask(5, 131, 0.4, 3)), [5, 131, 1], *theta.schema(), torch.bfloat16
    with path(name) as on:
        torch.library.opcheck(torch.ops.supermask.packed_weight, on(args))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_traces_for_a_gpu(source: str, dtype: torch.dtype) -> None:
    shape, rows, cols = (6, 5, 3, 3), 6, 45
    with FakeTensorMode():
        words = torch.ones(rows, 4, dtype=torch.int32, device="cuda")
        theta = Theta(
            seed=1,
            layer=0,
            generation=0,
            constant=torch.ones(1, device="cuda"),
            signs=words if source == "signs" else None,
            base=torch.ones(rows, cols, device="cuda") if source == "base" else None,
        )
        weight = packed_weight(words, shape, theta, dtype)
    assert (tuple(weight.shape), weight.dtype, weight.device.type) == (shape, dtype, "cuda")


@pytest.mark.parametrize(
    ("shape", "mask"),
    [
        ((5, 131), (5, 4)),
        ((5, 131), (5, 12)),
        ((5, 128), (5, 8)),
        ((5, 131), (4, 8)),
        ((5, 131), (6, 8)),
        ((7,), (8, 4)),
    ],
    ids=str,
)
def test_a_mask_of_another_shape_is_refused(shape: tuple[int, ...], mask: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"mask .*{mask[0] if mask[0] != shape[0] else mask[1]}"):
        packed_weight(torch.zeros(mask, dtype=torch.int32), shape, theta_of(5, 131, "seed"))


@pytest.mark.parametrize("mask", [torch.zeros(5, 8), torch.zeros(5, 8, dtype=torch.int64), torch.zeros(5, 131).bool()])
def test_a_mask_of_another_dtype_is_refused(mask: Tensor) -> None:
    with pytest.raises(ValueError, match=f"mask is {mask.dtype}"):
        packed_weight(mask, (5, 131), theta_of(5, 131, "seed"))


def test_a_strided_mask_is_refused() -> None:
    """A kernel would read it as if it were contiguous."""
    with pytest.raises(ValueError, match=r"mask .*strides \(1, 5\)"):
        packed_weight(torch.zeros(8, 5, dtype=torch.int32).t(), (5, 131), theta_of(5, 131, "seed"))


@pytest.mark.parametrize("signs", [(5, 4), (4, 8), (1, 8)], ids=str)
def test_signs_of_another_shape_are_refused(signs: tuple[int, int]) -> None:
    theta = theta_of(5, 131, "seed")._replace(signs=torch.zeros(signs, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"theta\.signs"):
        packed_weight(torch.zeros(5, 8, dtype=torch.int32), (5, 131), theta)
