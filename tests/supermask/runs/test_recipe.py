"""Recipes: reproducible to the bit, and clear about what they cannot do."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import ep
from supermask.methods.iterand import IteRand
from supermask.recipes import digits_soft_iep
from supermask.runs.folder import RunFolder, RunFolderError
from supermask.runs.main import main
from supermask.runs.options import RecipeError, RunOptions
from supermask.runs.read import read_metrics, read_summary, summarise
from supermask.runs.recipe import Recipe
from supermask.runs.run import Run
from supermask.runs.stages import Evaluate, Export, Search, Stage, Train, search
from supermask.tickets.errors import TicketError
from supermask.training.non_finite import NonFiniteError
from supermask.training.parallel import Group
from supermask.training.training import Training
from tests.devices import DEVICE
from tests.supermask.runs.small_runs import BASE, Killed, Moments, watched

SHORT = Training(epochs=2, lr=0.3)


def recipe(folder: Path, **changes: object) -> Recipe:
    run = RunOptions(folder=folder, device=str(DEVICE), quiet=True, seed=changes.pop("seed", 0))
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


def test_a_finished_run_is_listed_without_its_metrics(tmp_path: Path) -> None:
    result = recipe(tmp_path / "run", seed=5).execute()
    expected = summarise(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    found = read_summary(tmp_path / "run")
    assert found == expected
    assert (found.name, found.seed, found.finished) == ("digits_soft_iep", 5, True)
    assert (found.cycles, found.tickets) == (result.cycles, result.tickets)
    assert found.settings["training"]["epochs"] == 2
    assert found.seconds > 0


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


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of the digits command of two cycles of one epoch."""
    short = ("--training.epochs", 1, "--cycles", 2, "--run.device", DEVICE)
    monkeypatch.setattr("sys.argv", ["recipe", *map(str, (*short, *arguments))])
    try:
        main(digits_soft_iep.recipe)
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_resumed_to_its_table_and_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "--resume") == 0
    assert "runs/digits_soft_iep-1: no run of this configuration to resume, so one is begun" in capsys.readouterr().out
    before = contents(tmp_path)
    assert command(monkeypatch, "--resume") == 0
    said = capsys.readouterr().out
    assert "goes on after 62 of 62 steps" in said
    kept = [event["kept"] for event in read_metrics(Path("runs/digits_soft_iep-1")) if event["event"] == "cycle"]
    assert all(f"{count:,}" in said for count in kept)
    assert "ticket.safetensors: " in said
    assert contents(tmp_path) == before


def test_a_run_is_resumed_with_its_own_arguments_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with watched(40), pytest.raises(Killed):
        command(monkeypatch, "--run.folder", folder)
    before = contents(folder)
    for changed, says in (
        (("--training.lr", 0.1), "training.lr was 0.3, is 0.1"),
        (("--run.seed", 4), "run.seed was 0, is 4"),
        (("--final", 0.5), "stages.0.cycle.remaining was 0.17"),
        (("--cycles", 1), "stages.3.stage was 'Evaluate', is None"),
        (("--conversion.overrides", "fc3", 1.0), "conversion.overrides"),
        (("--data.batch", 50), "data.batch was 32, is 50"),
    ):
        assert command(monkeypatch, "--run.folder", folder, "--resume", *changed) == 2
        said = capsys.readouterr().err
        assert f"run folder {folder} holds a run of another configuration: " in said
        assert says in said
        assert contents(folder) == before
    # Where and how a run happens is no part of what it is.
    options = ("--run.keep-checkpoints", 1, "--run.checkpoint-seconds", 5, "--run.quiet", "--run.tensorboard")
    assert command(monkeypatch, "--run.folder", folder, "--resume", *options) == 0


def test_resume_without_a_folder_takes_the_newest_run_of_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 0, 1):
        with watched(30), pytest.raises(Killed):
            command(monkeypatch, "--run.seed", seed)
    assert command(monkeypatch, "--resume") == 0
    assert "runs/digits_soft_iep-2: no whole checkpoint to go on from, so the run is begun anew" in (
        capsys.readouterr().err
    )
    finished = [len(read_metrics(path)) for path in sorted((tmp_path / "runs").iterdir())]
    assert finished == [0, 8, 0]


def test_a_folder_where_nothing_began_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was killed before its configuration was written, and a folder that is not there."""
    folder = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_config", Moments(at=1))
        with pytest.raises(Killed):
            command(monkeypatch, "--run.folder", folder)
    assert contents(folder) == {Path("metrics.jsonl"): b"", Path("ranks.jsonl"): b""}
    for path in (folder, tmp_path / "absent"):
        assert command(monkeypatch, "--run.folder", path, "--resume") == 0
        assert f"{path}: nothing to resume there, so the run is begun" in capsys.readouterr().out
        assert read_metrics(path)[-1] == {"event": "end"}
        assert (path / "config.json").exists()


def test_a_folder_in_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    assert command(monkeypatch, "--run.folder", folder.path, "--resume") == 2
    assert f"run folder {folder.path} is being written by another process" in capsys.readouterr().err
    folder.close()
    assert command(monkeypatch, "--run.folder", folder.path, "--resume") == 0


def test_a_folder_with_a_run_is_refused_without_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with watched(40), pytest.raises(Killed):
        command(monkeypatch, "--run.folder", tmp_path)
    assert command(monkeypatch, "--run.folder", tmp_path) == 2
    assert "already holds a run: go on with it (--resume)" in capsys.readouterr().err


def test_metrics_that_were_changed_are_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--run.folder", tmp_path / "run") == 0
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    assert command(monkeypatch, "--run.folder", tmp_path / "run", "--resume") == 2
    assert "has 0 bytes where its checkpoint saw" in capsys.readouterr().err


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe(tmp_path / "run").execute()
    monkeypatch.setattr("supermask.runs.session.VERSION", 99)
    again = replace(recipe(tmp_path / "run"), run=RunOptions(folder=tmp_path / "run", resume=True, device=str(DEVICE)))
    with pytest.raises(RecipeError, match="checkpoint of version 1, this is version 99"):
        again.execute()


def test_a_ticket_without_room_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise TicketError("ticket.safetensors: cannot be written: no room")

    monkeypatch.setattr("supermask.runs.stages.save", lambda *_, **__: full())
    assert command(monkeypatch, "--run.folder", tmp_path / "run") == 2
    assert "ticket.safetensors: cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_a_signal_ends_exits_with_its_code(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr("supermask.runs.stages.Evaluate.run", interrupt)
    assert command(monkeypatch, "--run.folder", tmp_path / "run") == 128 + number
    assert f"interrupted by {number.name}: go on from the last checkpoint with --resume" in capsys.readouterr().err


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="batch=32: 3 processes share it evenly; choose a multiple"):
        Run(says=recipe(tmp_path / "run"), ranks=Group(rank=0, ranks=3), device=torch.device("cpu")).begin()
    assert not list(tmp_path.iterdir())


def test_dense_training_learns_in_the_same_loop_and_resumes(tmp_path: Path) -> None:
    dense = replace(recipe(tmp_path / "run", training=Training(epochs=10, lr=0.1)), stages=(Train(), Evaluate()))
    (cycle,) = dense.execute().cycles
    assert cycle.accuracy is not None
    assert cycle.accuracy > 0.97
    assert (cycle.rate, cycle.remaining, cycle.dying, cycle.kept) == (1.0, 1.0, 0.0, cycle.edges)
    assert cycle.edges == 64 * 256 + 256 * 256 + 256 * 10
    events = read_metrics(tmp_path / "run")
    assert [event["event"] for event in events] == ["epoch"] * 10 + ["cycle", "evaluate", "end"]
    assert {(event["remaining"], event["dying"]) for event in events[:11]} == {(1.0, 0.0)}
    assert "layers" not in events[10]
    assert not (tmp_path / "run" / "masks").exists()
    assert (tmp_path / "run" / "ranks.jsonl").read_text() == ""


@pytest.mark.parametrize("other", [Search(cycle=Cycle(remaining=0.5)), Export()])
def test_dense_training_is_not_mixed_with_a_search(other: Stage, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"stages have Train and {type(other).__name__}: .*make two recipes"):
        replace(recipe(tmp_path), stages=(Train(), other))


def test_a_dry_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "62 steps in all" in said
    assert "memory: about" in said
    assert not list(tmp_path.iterdir())


def test_stages_of_another_method_are_refused() -> None:
    with pytest.raises(ValueError, match="leave stages out, or give"):
        replace(BASE, method=IteRand(remaining=0.1), stages=search(IteRand(remaining=0.9).phases()))


def test_a_folder_may_be_a_string(tmp_path: Path) -> None:
    result = replace(BASE, run=RunOptions(folder=str(tmp_path / "run"), device=str(DEVICE), quiet=True)).execute()  # type: ignore[arg-type]
    assert result.folder == tmp_path / "run"
