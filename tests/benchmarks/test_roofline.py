"""docs/roofline.md is what its script writes, and the bounds in it are those of the arithmetic."""

from dataclasses import replace

import pytest

from benchmarks import roofline
from benchmarks.aot.stored import newest
from benchmarks.roofline import CHIPS, Chip, Layer, bound, dense, masked, mlp, page, resnet50

CHIP = Chip(target="sm_90", matrix=100.0, bandwidth=10.0, integer=20.0, source="made up")


def _row(**changes: object) -> dict[str, object]:
    row = {
        "kernel": "masked_mm",
        "variant": "bf16, seed, 16 rows",
        "target": "sm_90",
        "config": "x:*bf16 BLOCK_N=128 BLOCK_M=16 warps=4",
        "integer_per_edge": 2.0,
    }
    return row | changes


def test_the_page_is_what_the_script_writes() -> None:
    assert roofline.PAGE.read_text() == page(newest()), "run python -m benchmarks.roofline"


def test_the_slowest_part_bounds_the_whole() -> None:
    assert bound(CHIP, bytes=100, operations=500, instructions=20).by == "memory"
    assert bound(CHIP, bytes=100, operations=2000, instructions=20).seconds == 20
    assert bound(CHIP, bytes=100, operations=500, instructions=300).by == "integer"


def test_a_layer_is_counted_by_hand() -> None:
    (layer,) = mlp(8)
    assert layer.edges == 4096 * 4096
    assert layer.operations == 2 * 8 * 4096 * 4096
    assert layer.bytes(2) == 2 * 4096 * 4096 + 2 * (8 * 4096 + 8 * 4096)
    assert dense(layer, CHIPS["H100"]).seconds == pytest.approx(layer.bytes(2) / 3.35e12)


def test_a_weight_is_made_once_for_every_block_of_rows() -> None:
    chip = replace(CHIP, bandwidth=1e6)
    layer = Layer(name="", rows=100, cols=10, positions=17, inputs=170)
    found = masked(layer, chip, [_row()])
    assert (found.by, found.seconds) == ("matrix", 2 * 17 * 1000 / 100.0)
    slow = masked(layer, chip, [_row(integer_per_edge=4.0)])
    assert (slow.by, slow.seconds) == ("integer", 2 * 1000 * 4.0 / 20.0)
    best = masked(layer, chip, [_row(integer_per_edge=4.0), _row(integer_per_edge=5.0, config="BLOCK_M=32")])
    assert best.by == "matrix"


@pytest.mark.parametrize(
    "change",
    [
        {"target": "sm_80"},
        {"variant": "fp32, seed, 16 rows"},
        {"variant": "2 coats, bf16, seed, 16 rows"},
        {"kernel": "masked_mm_sum"},
    ],
)
def test_other_configurations_do_not_count(change: dict[str, object]) -> None:
    with pytest.raises(LookupError, match=r"no configuration .* of masked_mm for sm_90"):
        masked(mlp(1)[0], CHIP, [_row(**change)])


def test_resnet50_is_complete() -> None:
    layers = resnet50(2)
    assert sum(layer.count for layer in layers) == 54
    assert sum(layer.count * layer.edges for layer in layers) == 25_502_912  # without norms and the fc's bias
    operations = sum(layer.count * layer.operations for layer in layers)
    assert operations / 2 / 2 == pytest.approx(4.089e9, rel=1e-3)  # multiply-adds an image, as torchvision has it
    first = layers[0]
    assert (first.name, first.positions, first.inputs) == (
        "3 to 64, 7x7, stride 2, 224x224",
        2 * 112**2,
        2 * 3 * 224**2,
    )
    assert layers[-1].kernel == "masked_mm"
    assert {layer.bits for layer in layers if "3x3" in layer.name} == {2}
