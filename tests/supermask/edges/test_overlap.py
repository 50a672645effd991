"""Overlap of masks, against counting edge by edge; hard pruning nests."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from supermask.edges.overlap import Masks, overlap, packed_overlap
from supermask.kernels.base.bits import pack
from supermask.runs.read import MaskFileError, read_masks
from tests.supermask.runs.run_folders import write_run


def masks(
    seed: int, name: str = "m", fc2: tuple[int, int] = (5, 33), density: float = 0.3
) -> tuple[Masks, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    dense = {
        "fc1": torch.rand(7, 130, generator=generator) < density,
        "fc2": torch.rand(*fc2, generator=generator) < 0.5,
    }
    bits = {layer: pack(mask) for layer, mask in dense.items()}
    cols = {layer: mask.shape[1] for layer, mask in dense.items()}
    return Masks(name=name, bits=bits, cols=cols), list(dense.values())


@given(
    rows=st.integers(1, 5),
    cols=st.sampled_from([1, 31, 32, 33, 127, 128, 129]),
    densities=st.tuples(*[st.sampled_from([0.0, 0.1, 0.5, 1.0])] * 2),
    seed=st.integers(0, 99),
)
def test_packed_overlap_counts_edges(rows: int, cols: int, densities: tuple[float, float], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(rows, cols, generator=generator) < density for density in densities)
    found = packed_overlap(pack(a), pack(b), cols)
    smaller = min(int(a.sum()), int(b.sum()))
    assert (found.a, found.b, found.common) == (int(a.sum()), int(b.sum()), int((a & b).sum()))
    if smaller:
        assert found.ratio == int((a & b).sum()) / smaller
        assert found.expected == pytest.approx(max(found.a, found.b) / (rows * cols))  # the density of the denser one
    else:
        assert math.isnan(found.ratio)
        assert math.isnan(found.expected)
    assert packed_overlap(pack(a), pack(a), cols).common == int(a.sum())


def test_networks_by_layer_and_in_all() -> None:
    (a, dense_a), (b, dense_b) = masks(0), masks(1, density=0.1)
    found = overlap(a, b)
    assert list(found.layers) == ["fc1", "fc2"]
    common = [int((x & y).sum()) for x, y in zip(dense_a, dense_b, strict=True)]
    assert [layer.common for layer in found.layers.values()] == common
    sizes = [[int(mask.sum()) for mask in dense] for dense in (dense_a, dense_b)]
    assert found.total.ratio == sum(common) / min(map(sum, sizes))
    expected = sum(x * y / mask.numel() for x, y, mask in zip(*sizes, dense_a, strict=True))
    assert found.total.expected == pytest.approx(expected / min(map(sum, sizes)))


def test_independent_masks_overlap_as_expected() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (pack(torch.rand(500, 400, generator=generator) < density) for density in (0.2, 0.05))
    found = packed_overlap(a, b, 400)
    assert found.expected == pytest.approx(0.2, rel=0.02)
    assert found.ratio == pytest.approx(found.expected, rel=0.05)  # of 10,000 edges: 4 standard deviations


def test_hard_pruning_nests_and_the_soft_one_need_not(tmp_path: Path) -> None:
    ratios = {}
    for space in ("survivors", "all"):
        run = write_run(tmp_path / space, space=space)
        files = [read_masks(run / "masks" / f"cycle-{cycle}.safetensors") for cycle in (1, 2, 3)]
        ratios[space] = [overlap(files[i], files[j]).total.ratio for i, j in ((0, 1), (0, 2), (1, 2))]
        same = overlap(files[1], files[1])
        assert all(layer.ratio == 1 for layer in same.layers.values())
    assert ratios["survivors"] == [1.0, 1.0, 1.0]
    assert all(0.3 < ratio < 1 for ratio in ratios["all"])


def test_other_networks_are_refused_by_layer() -> None:
    a, _ = masks(0, "a")
    with pytest.raises(ValueError, match="layer 'fc2' is 5 x 33 in a and 5 x 34 in b"):
        overlap(a, masks(0, "b", fc2=(5, 34))[0])
    with pytest.raises(ValueError, match="layer 'fc2' is 6 x 33 in b and 5 x 33 in a"):
        overlap(masks(0, "b", fc2=(6, 33))[0], a)
    less = Masks(name="less", bits={"fc1": a.bits["fc1"]}, cols=a.cols)
    for pair in ((a, less), (less, a)):
        with pytest.raises(ValueError, match="less has no layer 'fc2', and a has"):
            overlap(*pair)
    with pytest.raises(ValueError, match="m: layer 'fc1' has no number of columns"):
        Masks(name="m", bits={"fc1": a.bits["fc1"]}, cols={})


def test_files_that_hold_no_masks_are_named(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    with pytest.raises(MaskFileError, match=r"m.safetensors: no such file"):
        read_masks(file)
    file.write_bytes(b"damaged")
    with pytest.raises(MaskFileError, match=r"m.safetensors: not a readable safetensors file"):
        read_masks(file)
    bits = {"fc1": pack(torch.ones(3, 40, dtype=torch.bool))}
    for metadata in (None, {"cols": "x"}, {"cols": "[]"}, {"cols": '{"fc1": 0}'}, {"cols": '{"fc1": "40"}'}):
        save_file(bits, file, metadata=metadata)
        with pytest.raises(MaskFileError, match="how many columns"):
            read_masks(file)
    save_file(bits, file, metadata={"cols": json.dumps({"fc1": 400})})
    with pytest.raises(MaskFileError, match=r"m.safetensors: layer 'fc1' is torch.int32"):
        read_masks(file)
    save_file(bits, file, metadata={"cols": json.dumps({"fc2": 40})})
    with pytest.raises(MaskFileError, match="layer 'fc1' has no number of columns"):
        read_masks(file)
