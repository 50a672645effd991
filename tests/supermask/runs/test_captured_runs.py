"""Runs whose steps are captured find what any other finds; on a CPU by a stand-in for CUDA graphs (tests/graphs.py)."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from supermask.methods.edge_popup import EP
from supermask.runs.options import RunOptions
from supermask.runs.recipe import Recipe
from supermask.training import captured as steps
from tests.devices import DEVICE
from tests.graphs import graphs  # noqa: F401
from tests.supermask.methods.test_every_method import SHORT, recipe
from tests.supermask.runs.small_runs import (
    CASES,
    Killed,
    a_save_every,
    left_by,
    placed,
    same,
    watched,
)

RUNS: dict[str, Recipe] = {label: recipe(method) for label, method in SHORT.items()}
RUNS |= {label: CASES[label] for label in ("dropout, a pinned layer", "dense", "augmented pictures, bfloat16")}


def captured(made: Recipe) -> Recipe:
    return replace(made, training=replace(made.training, capture=True))


@contextmanager
def nothing_replayed() -> Iterator[None]:
    """Within the block, steps that could be captured are taken as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "WARMUP", 10**9)
        yield


@pytest.mark.parametrize("label", RUNS)
def test_a_captured_run_ends_as_any_other(label: str, tmp_path: Path, graphs: list[int]) -> None:  # noqa: F811
    made = captured(RUNS[label])
    with nothing_replayed():
        placed(made, tmp_path / "plain").execute()
    assert not graphs
    taken = placed(made, tmp_path / "captured").execute()
    assert bool(graphs) == any(cycle.loss is not None for cycle in taken.cycles), (
        "where a step is taken, one is captured"
    )
    assert same(left_by(tmp_path / "captured"), left_by(tmp_path / "plain"))


def test_on_a_cpu_it_ends_as_one_without_capture(tmp_path: Path, graphs: list[int]) -> None:  # noqa: F811
    """On a GPU but for the rounding of what torch.optim.SGD steps, in another kernel and at a rate of float32."""
    cpu = RunOptions(folder=tmp_path / "plain", device="cpu", quiet=True)
    plain = replace(RUNS["soft iEP"], run=cpu).execute()
    taken = replace(captured(RUNS["soft iEP"]), run=replace(cpu, folder=tmp_path / "captured")).execute()
    assert len(graphs) == 2, "a capture a cycle, which has an optimiser of its own: a rate that changes takes none"
    assert taken.cycles == plain.cycles
    tickets = [(tmp_path / name / "ticket.safetensors").read_bytes() for name in ("plain", "captured")]
    assert tickets[0] == tickets[1]


@pytest.mark.parametrize(
    ("label", "moment"),
    [*(("hard iEP", moment) for moment in (0.1, 0.4, 0.7)), ("dense", 0.5), ("augmented pictures, bfloat16", 0.5)],
)
@pytest.mark.usefixtures("graphs")
def test_it_goes_on_where_it_was_killed(label: str, moment: float, tmp_path: Path) -> None:
    made = captured(CASES[label])
    with watched() as whole, a_save_every(3):
        placed(made, tmp_path / "whole", checkpoint_seconds=3).execute()
    with watched(int(moment * whole.passed)), a_save_every(3), suppress(Killed):
        placed(made, tmp_path / "cut", checkpoint_seconds=3).execute()
    placed(made, tmp_path / "cut", resume=True).execute()
    assert same(left_by(tmp_path / "cut"), left_by(tmp_path / "whole"))


def test_a_rate_that_was_loaded_is_moved_to_where_a_step_reads_it() -> None:
    """torch's optimisers leave it where it was saved from, or the CPU."""
    weight = torch.nn.Parameter(torch.ones(3, device=DEVICE))
    weight.grad = torch.ones_like(weight)
    for kind in (torch.optim.SGD, torch.optim.AdamW):
        held = kind([weight], lr=0.5)
        held.step()
        held.load_state_dict(
            held.state_dict() | {"param_groups": [held.param_groups[0] | {"lr": torch.tensor(0.25), "params": [0]}]}
        )
        steps.capturable(held, DEVICE)
        (group,) = held.param_groups
        assert (group["lr"].device, float(group["lr"])) == (DEVICE, 0.25)
        assert all(slot["step"].device == DEVICE for slot in held.state.values() if "step" in slot)
        assert group.get("capturable", group["fused"]) is True


class OwnLoss(EP):
    whole_gradients: ClassVar[bool] = False

    def loss(self, model: nn.Module, network: Any, batch: Any, label_smoothing: float) -> tuple[Tensor, Tensor | None]:
        return super().loss(model, network, batch, label_smoothing)


class Replayable(OwnLoss):
    replayable: ClassVar[bool] = True


def test_capture_is_refused_where_it_cannot_be(tmp_path: Path) -> None:
    made = placed(captured(recipe(EP(remaining=0.5))), tmp_path / "run")
    with pytest.raises(ValueError, match="capture=True on cpu: steps are captured in CUDA graphs"):
        replace(made, run=replace(made.run, device="cpu")).execute()
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("graphs")
def test_a_loss_of_ones_own_says_whether_it_can_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="capture=True with OwnLoss's own loss or step, which a replay would not call"):
        placed(captured(recipe(OwnLoss(remaining=0.5))), tmp_path / "run").execute()
    assert not (tmp_path / "run").exists()
    placed(captured(recipe(Replayable(remaining=0.5))), tmp_path / "run").execute()


@pytest.mark.usefixtures("graphs")
def test_an_optimiser_that_torch_cannot_capture_is_refused(tmp_path: Path) -> None:
    class Unfused(EP):
        def optimiser(self, model: nn.Module, training: Any, cycle: Any) -> torch.optim.Optimizer:
            return torch.optim.LBFGS(model.parameters())

    with pytest.raises(ValueError, match="LBFGS cannot be captured in a CUDA graph"):
        placed(captured(recipe(Unfused(remaining=0.5))), tmp_path / "run").execute()
