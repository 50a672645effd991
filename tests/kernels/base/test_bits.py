"""Packed bits equal numpy's, on every path and compiled, and padding stays zero."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from supermask.kernels.base.bits import check_words, count_bits, pack, popcount, unpack, words_per_row
from tests.devices import On, home
from tests.kernels.paths import (
    COLS,
    ROWS,
    every_path,
    guarded,
    pack_plain,
    path,
    random_mask,
    random_words,
    same,
    unpack_plain,
)

DENSITIES = st.sampled_from([0.0, 0.03, 0.5, 1.0])
DATA = st.integers(0, 2**31)


def test_a_row_is_whole_groups_of_four_words() -> None:
    assert [words_per_row(cols) for cols in (1, 127, 128, 129, 256, 257)] == [4, 4, 4, 8, 8, 12]


@given(rows=ROWS, cols=COLS, density=DENSITIES, data=DATA)
def test_pack_is_numpys_on_padded_rows(rows: int, cols: int, density: float, data: int) -> None:
    mask = random_mask(rows, cols, density, data)
    expected = pack_plain(mask)
    assert expected.shape == (rows, words_per_row(cols))
    for words in every_path(lambda on: pack(on(mask))):
        assert same(words, expected)


@given(rows=ROWS, cols=COLS, density=DENSITIES, data=DATA)
def test_unpack_undoes_pack(rows: int, cols: int, density: float, data: int) -> None:
    mask = random_mask(rows, cols, density, data)
    words = pack_plain(mask)
    for found in every_path(lambda on: unpack(on(words), cols)):
        assert same(found, mask)


@given(rows=ROWS, cols=COLS, data=DATA)
def test_unpack_reads_only_the_columns(rows: int, cols: int, data: int) -> None:
    """Set padding bits end up nowhere."""
    words = random_words(rows, cols, data)
    expected = unpack_plain(words, cols)
    for found in every_path(lambda on: unpack(on(words), cols)):
        assert same(found, expected)


@given(rows=st.sampled_from([1, 2, 7]), cols=COLS, density=DENSITIES, data=DATA)
def test_popcount_counts_each_row(rows: int, cols: int, density: float, data: int) -> None:
    mask = random_mask(rows, cols, density, data)
    for counts in every_path(lambda on: popcount(on(pack_plain(mask)))):
        assert same(counts, mask.sum(1))
    assert count_bits(pack_plain(mask)) == int(mask.sum())


@pytest.mark.parametrize("words", [4, 128, 132, 260])
def test_popcount_of_every_bit_of_long_rows(words: int) -> None:
    """Rows longer than a program's block, with the sign bit set in every word."""
    full = torch.full((3, words), -1, dtype=torch.int32)
    full[1] = torch.arange(words, dtype=torch.int32) - 2**31
    expected = [32 * words, sum(1 + word.bit_count() for word in range(words)), 32 * words]
    for counts in every_path(lambda on: popcount(on(full))):
        assert counts.tolist() == expected


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_strided_matrices_are_read_as_they_look(name: str) -> None:
    mask = random_mask(129, 67, 0.4, 1).t()
    words = random_words(12, 40, 2).t()
    with path(name) as on, guarded():
        assert same(home(pack(on(mask))), pack_plain(mask.contiguous()))
        assert same(home(unpack(on(words), 300)), unpack_plain(words, 300))
        assert popcount(on(words)).tolist() == [sum((w % 2**32).bit_count() for w in row) for row in words.tolist()]


@pytest.mark.parametrize("cols", [1, 33, 128, 257])
def test_compiled_unpack_is_unpack(cols: int, on: On) -> None:
    words = on(random_words(67, cols, 3))
    compiled = torch.compile(lambda words: unpack(words, cols), fullgraph=True, backend="aot_eager")
    assert same(compiled(words), unpack(words, cols))


def test_the_compiler_sees_through_unpack() -> None:
    seen = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        seen.append(graph.code)
        return graph.forward

    words = random_words(3, 33, 3)
    compiled = torch.compile(lambda words: unpack(words, 33), fullgraph=True, backend=backend)
    assert same(compiled(words), unpack(words, 33))
    assert len(seen) == 1
    assert "supermask" not in seen[0]


@pytest.mark.parametrize(
    "mask",
    [torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.uint8), torch.ones(4).bool(), torch.ones(2, 2, 2).bool()],
    ids=lambda mask: f"{mask.dtype} {tuple(mask.shape)}",
)
def test_pack_refuses_what_is_no_boolean_matrix(mask: Tensor) -> None:
    with pytest.raises(ValueError, match=rf"mask is {mask.dtype} of shape \({mask.shape[0]}, ?"):
        pack(mask)


@pytest.mark.parametrize(
    ("words", "cols"),
    [
        (torch.zeros(3, 4, dtype=torch.int64), 100),
        (torch.zeros(3, 4, dtype=torch.uint8), 100),
        (torch.zeros(4, dtype=torch.int32), 100),
        (torch.zeros(3, 4, dtype=torch.int32), 129),
        (torch.zeros(3, 8, dtype=torch.int32), 128),
    ],
    ids=lambda value: f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else str(value),
)
def test_words_of_other_columns_are_refused(words: Tensor, cols: int) -> None:
    expected = rf"of {cols} columns are torch.int32 of shape \[rows, {words_per_row(cols)}\]"
    with pytest.raises(ValueError, match=f"words is {words.dtype} .*{expected}"):
        unpack(words, cols)
    with pytest.raises(ValueError, match=f"mine is {words.dtype} .*{expected}"):
        check_words("mine", words, cols)


@pytest.mark.parametrize(
    "words",
    [torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.int64), torch.zeros(4, dtype=torch.int32)],
    ids=lambda words: f"{words.dtype} {tuple(words.shape)}",
)
def test_popcount_refuses_what_are_no_words(words: Tensor) -> None:
    with pytest.raises(ValueError, match=f"words is {words.dtype}"):
        popcount(words)


OPS = {
    "pack": (lambda device: (torch.ones(5, 131, dtype=torch.bool, device=device),), (5, 8), torch.int32),
    "unpack": (lambda device: (torch.ones(5, 8, dtype=torch.int32, device=device), 131), (5, 131), torch.bool),
    "popcount": (lambda device: (torch.ones(5, 8, dtype=torch.int32, device=device),), (5,), torch.int64),
}


@pytest.mark.parametrize("name", ["torch", "triton"])
@pytest.mark.parametrize("op", OPS)
def test_opcheck(op: str, name: str) -> None:
    with path(name) as on:
        torch.library.opcheck(getattr(torch.ops.supermask, op), OPS[op][0](on.device))


@pytest.mark.parametrize("op", OPS)
def test_traces_for_a_gpu(op: str) -> None:
    make, shape, dtype = OPS[op]
    with FakeTensorMode():
        out = getattr(torch.ops.supermask, op)(*make("cuda"))
    assert (tuple(out.shape), out.dtype, out.device.type) == (shape, dtype, "cuda")
