"""Masks as arrays are those that the run had, wherever they are read from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import supermask
from supermask.edges.in_model import searched_edges
from supermask.kernels.base.bits import pack
from supermask.runs.masks import masks, overlap
from supermask.runs.read import MaskFileError, RunRecord, read_masks, read_run
from supermask.runs.records import RunReadError
from supermask.tickets.errors import TicketError
from tests.supermask.runs.run_folders import LAYERS, write_run
from tests.supermask.runs.small_runs import BASE, Pictures, convolutions, placed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A run of convolutions."""
    folder = tmp_path_factory.mktemp("masks") / "run"
    placed(replace(BASE, data=Pictures(), network=convolutions), folder).execute()
    return read_run(folder)


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_mask_has_the_shape_of_the_weight_and_selects_its_edges(run: RunRecord) -> None:
    found = run.mask()
    network = supermask.load(run.path / "ticket.safetensors", weights="materialised")
    assert len(found) >= 4
    for name, module in network.named_modules():
        if name in found:
            weight = module.weight
            assert torch.equal(torch.from_numpy(found[name]), weight != 0)
    assert {mask.dtype for mask in found.values()} == {np.dtype(bool)}
    assert [mask.ndim for mask in found.values()].count(4) == 2


def test_cycles_are_numbered_from_one_and_from_the_end(run: RunRecord) -> None:
    kept = [sum(int(mask.sum()) for mask in run.mask(cycle).values()) for cycle in (1, 2)]
    assert kept == [cycle.kept for cycle in run.cycles]
    assert equal(run.mask(-2), run.mask(1))
    assert equal(run.mask(), run.mask(2))
    for cycle in (0, 3, -3):
        with pytest.raises(ValueError, match=f"run has no mask of cycle {cycle}: it has cycles 1, 2"):
            run.mask(cycle)


def test_every_source_gives_the_same(run: RunRecord, tmp_path: Path) -> None:
    expected = run.mask()
    copied = tmp_path / "copied.safetensors"
    copied.write_bytes(run.masks[2].read_bytes())
    ticket = run.path / "ticket.safetensors"
    with ticket.open("rb") as file:
        assert equal(masks(file), expected)
    for source in (run, run.path, str(run.path), ticket, copied, read_masks(copied), expected):
        assert equal(masks(source), expected)
    assert equal(masks(run.path, 1), run.mask(1))
    assert not equal(masks(run.path, 1), expected)
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(ticket.read_bytes())
    assert equal(masks(folder), expected)


def test_arrays_are_ones_own_to_change(run: RunRecord) -> None:
    name = next(iter(run.mask()))
    mine = run.mask()
    mine[name][:] = True
    assert not run.mask()[name].all()


def test_files_without_shapes_give_rows_and_columns(tmp_path: Path) -> None:
    found = masks(write_run(tmp_path / "run"))
    assert {name: mask.shape for name, mask in found.items()} == LAYERS


def test_shapes_are_those_of_the_search(run: RunRecord) -> None:
    model = convolutions(2).build()
    searched = searched_edges(supermask.convert(model, seed=0))
    assert {name: mask.shape for name, mask in run.mask().items()} == {n: e.shape for n, e in searched.items()}


def test_overlap_of_runs_tickets_and_arrays(run: RunRecord) -> None:
    first, last = run.mask(1), run.mask(2)
    common = {name: int((first[name] & last[name]).sum()) for name in first}
    found = overlap(first, run.path / "ticket.safetensors")
    assert {name: layer.common for name, layer in found.layers.items()} == common
    kept = [sum(int(mask.sum()) for mask in some.values()) for some in (first, last)]
    assert found.ratio == found.total.ratio == sum(common.values()) / min(kept)
    expected = sum(int(first[n].sum()) * int(last[n].sum()) / first[n].size for n in first) / min(kept)
    assert found.expected == pytest.approx(expected)
    frame = found.frame()
    assert list(frame.columns) == ["layer", "a", "b", "common", "expected_common", "ratio", "expected"]
    assert frame["layer"].tolist() == list(first)
    assert frame["common"].tolist() == list(common.values())
    assert frame["a"].tolist() == [int(mask.sum()) for mask in first.values()]
    assert frame["ratio"].tolist() == [layer.ratio for layer in found.layers.values()]
    assert overlap(run, run.path).ratio == 1


def test_what_holds_no_masks_is_named(run: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(TicketError, match="missing"):
        masks(tmp_path / "missing.safetensors")
    with pytest.raises(RunReadError, match="is not a run folder"):
        masks(tmp_path)
    bare = write_run(tmp_path / "bare", bare=True)
    with pytest.raises(ValueError, match="bare has no mask of cycle -1: it has none"):
        masks(bare)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"x")
    with pytest.raises(TicketError, match="damaged"):
        masks(damaged)
    with pytest.raises(ValueError, match=r"a: layer 'fc' is float64 \(2,\): expected an array of bool"):
        overlap({"fc": np.ones(2)}, run)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="of different networks"):
        overlap(write_run(tmp_path / "other"), run)


@pytest.mark.parametrize("shapes", ["x", "[]", '{"conv1": 3}', '{"conv1": [8, 0]}', '{"conv1": [8, 27.0]}'])
def test_damaged_shapes_are_named(shapes: str, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    save_file({"conv1": pack(torch.ones(8, 27, dtype=torch.bool))}, file, metadata={"shapes": shapes})
    with pytest.raises(MaskFileError, match=r"m.safetensors: its metadata do not say how many columns"):
        read_masks(file)


def test_a_shape_that_does_not_fit_is_named(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    save_file(
        {"conv1": pack(torch.ones(8, 27, dtype=torch.bool))}, file, metadata={"shapes": '{"conv1": [9, 3, 3, 3]}'}
    )
    with pytest.raises(MaskFileError, match=r"layer 'conv1': \(9, 3, 3, 3\) is not the shape of 8 x 27 edges"):
        read_masks(file)
