"""Tables of sizes: every case has a row, the first that fits, and what is tried takes its place."""

from itertools import product

import pytest

from supermask.kernels.base import edge_tile
from supermask.kernels.base.sizes import INTERPRETED, Row, Sizes, fitting, tried
from supermask.kernels.masked_conv2d.sizes import SIZES as CONV
from supermask.kernels.masked_mm.sizes import SIZES as MM
from supermask.kernels.score_step.sizes import SIZES as STEP
from supermask.kernels.select.sizes import SIZES as SELECT

ARCHITECTURES = ["sm_80", "sm_90", "sm_100", "sm_120", "gfx942", "gfx1100", INTERPRETED]
FLAGS = {
    "masked_mm": (MM, ("exact", "single", "several", "transposed")),
    "masked_conv2d": (CONV, ("scattered", "wide", "exact", "natural")),
    "select": (SELECT, ()),
    "score_step": (STEP, ()),
    "edge_tile": (edge_tile.SIZES, ()),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("kernel", FLAGS)
def test_every_case_has_sizes_of_the_same_names(kernel: str, name: str) -> None:
    table, names = FLAGS[kernel]
    assert table.kernel == kernel
    found = [
        table.row(name, dict(zip(names, flags, strict=True)) | numbers).sizes
        for flags in product([False, True], repeat=len(names))
        for numbers in ({"rows": 1, "cols": 1}, {"rows": 4096, "cols": 1 << 30})
    ]
    assert {tuple(sizes) for sizes in found} == {tuple(found[0])}
    for sizes in found:
        assert all(size & (size - 1) == 0 for what, size in sizes.items() if what != "num_stages")


def test_the_first_row_that_fits_counts_the_architectures_before_its_familys() -> None:
    rows = {
        "sm_90": (Row({"BLOCK": 1}, {"rows": 8, "exact": True}), Row({"BLOCK": 2}, {"rows": 64})),
        "sm": (Row({"BLOCK": 3}, {"exact": False}), Row({"BLOCK": 4})),
    }
    table = Sizes("some", rows)

    def block(name: str, rows: int, exact: bool) -> int:
        return table.row(name, {"rows": rows, "exact": exact}).sizes["BLOCK"]

    assert [block("sm_90", 8, True), block("sm_90", 8, False), block("sm_90", 9, True)] == [1, 2, 2]
    assert [block("sm_90", 65, True), block("sm_90", 65, False), block("sm_80", 8, True)] == [4, 3, 4]
    with pytest.raises(RuntimeError, match="some has no sizes for gfx942: it has them for sm_90, sm"):
        block("gfx942", 1, True)


def test_sizes_are_tried_one_kernel_at_a_time() -> None:
    plain, step = MM.of(exact=True, single=False, several=False, transposed=False, rows=4), STEP.of()
    with tried("masked_mm", {"BLOCK_M": 16}), tried("select", {"TILE": 512}):
        assert MM.of() == {"BLOCK_M": 16}
        assert SELECT.of() == {"TILE": 512}
        assert STEP.of() == step
    assert MM.of(exact=True, single=False, several=False, transposed=False, rows=4) == plain


@pytest.mark.parametrize(("count", "expected"), [(1, 16), (16, 16), (17, 32), (33, 64), (65, 64), (1000, 64)])
def test_a_block_is_the_least_that_holds_all(count: int, expected: int) -> None:
    assert fitting(count, 16, 64) == expected
