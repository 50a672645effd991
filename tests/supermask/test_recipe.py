"""Recipes: reproducible to the bit, and clear about what they cannot do."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from recipes import digits_soft_iep
from supermask.cycles import Cycle, ep
from supermask.folder import RunFolderError, read_metrics
from supermask.recipe import Recipe, RecipeError, RunOptions, main
from supermask.stages import Export, Search, Stage, search
from supermask.train import NonFiniteError, Training

SHORT = Training(epochs=2, lr=0.3)


def recipe(folder: Path, **changes: object) -> Recipe:
    run = RunOptions(folder=folder, device="cpu", quiet=True, seed=changes.pop("seed", 0))
    return digits_soft_iep.recipe(**{"training": SHORT, "final": 0.25, "cycles": 2, "run": run, **changes})


def test_two_runs_leave_the_same_bytes_and_torch_as_it_was(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    results = [recipe(tmp_path / name).execute() for name in "ab"]
    assert torch.equal(torch.get_rng_state(), state)
    for file in ("metrics.jsonl", "ticket.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert results[0].cycles == results[1].cycles
    recipe(tmp_path / "c", seed=2**64 - 1).execute()
    assert (tmp_path / "a" / "ticket.safetensors").read_bytes() != (tmp_path / "c" / "ticket.safetensors").read_bytes()


def test_what_a_run_writes(tmp_path: Path) -> None:
    result = recipe(tmp_path / "run").execute()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"]["training"]["epochs"] == 2
    assert config["recipe"]["network"] == {"name": "mlp", "arguments": {"sizes": [64, 256, 256, 10]}}
    assert [cycle.kept for cycle in result.cycles] == [42240, 21120]
    export, end = read_metrics(tmp_path / "run")[-2:]
    assert (export["event"], end) == ("export", {"event": "end"})
    assert export["same_logits"]
    assert export["accuracy"] == result.cycles[-1].recalibrated
    assert export["bytes"] == (result.folder / result.tickets[0].file).stat().st_size
    assert export["dense_bytes"] / export["bytes"] > 15


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_over_64_bits_is_refused_and_leaves_nothing(tmp_path: Path, seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed {seed}"):
        recipe(tmp_path / "run", seed=seed).execute()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("final", [0.0, 1.5, float("nan"), -0.1])
def test_a_rate_that_is_none_is_refused(tmp_path: Path, final: float) -> None:
    with pytest.raises(ValueError, match=f"remaining={final}"):
        recipe(tmp_path / "run", final=final)


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="file/run"):
        recipe(tmp_path / "file" / "run").execute()


def test_stages_without_a_first_cycle_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cycle 1"):
        replace(recipe(tmp_path), stages=(Search(cycle=Cycle(remaining=0.5, scores="inherit")),))


def test_a_run_that_breaks_down_says_where(tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteError, match=r"between steps 0 and 31; .*: parameter fc1.edges.scores.*learning rate than 1e\+38"
    ):
        recipe(tmp_path / "run", training=Training(epochs=2, lr=1e38, momentum=0.9)).execute()
    assert not (tmp_path / "run" / "ticket.safetensors").exists()


@pytest.mark.parametrize("wrong", [lambda s: (s, Export()), lambda s: (*ep(0.5), Export())])
def test_what_is_no_stage_is_named(tmp_path: Path, wrong: Callable[[tuple[Stage, ...]], tuple[object, ...]]) -> None:
    with pytest.raises(ValueError, match=r"stage 1 is .*unpacked with"):
        replace(recipe(tmp_path), stages=wrong(search(ep(0.5))))


def test_a_network_that_is_no_architecture_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="network gave Linear"):
        replace(recipe(tmp_path / "run"), network=lambda classes: nn.Linear(64, classes)).execute()
    assert not list(tmp_path.iterdir())


def test_an_interrupted_command_says_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("supermask.stages.Search.run", interrupt)
    monkeypatch.setattr("sys.argv", ["recipe", "--run.folder", str(tmp_path / "run"), "--run.quiet"])
    with pytest.raises(SystemExit) as left:
        main(digits_soft_iep.recipe)
    assert left.value.code == 130
    assert "interrupted" in capsys.readouterr().err
