"""Two processes compute what one does: batch norm, steps, evaluation; and they say when they do not agree."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from supermask.data.base import Loaded, in_memory
from supermask.edges.in_model import searched_edges
from supermask.networks.convert import convert
from supermask.runs.measured import accuracy_of
from supermask.training.evaluate import recalibrate
from supermask.training.global_norm import synchronise
from supermask.training.loop import Loop
from supermask.training.parallel import ALONE, Group, RanksDisagree, group
from supermask.training.training import Training
from tests.ranks import on_ranks

CPU = torch.device("cpu")
NORMS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.BatchNorm1d(5),
    "affine images": lambda: nn.BatchNorm2d(5, affine=True),
    "cumulative average": lambda: nn.BatchNorm2d(5, momentum=None, affine=False),
    "without statistics": lambda: nn.BatchNorm1d(5, track_running_stats=False),
    "frozen": lambda: nn.BatchNorm2d(5).requires_grad_(False).eval(),
}


def workers(task: str, folder: Path, ranks: int = 2) -> list[Any]:
    """What `TASKS[task]` gives in each of `ranks` gloo processes."""
    on_ranks(_work, task, str(folder), ranks, ranks=ranks)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(ranks)]


def _work(rank: int, task: str, folder: str, ranks: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    result = TASKS[task](Group(rank=rank, ranks=ranks, control=dist.new_group(backend="gloo")))
    torch.save(result, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def norms(ranks: Group) -> dict[str, list[Tensor]]:
    """Outputs, input gradients and state of each batch norm after two uneven batches, in float64."""
    found = {}
    for name, make in NORMS.items():
        generator = torch.Generator().manual_seed(1)
        model = nn.Sequential(make()).double()
        if model[0].affine:
            with torch.no_grad():
                model[0].weight.copy_(torch.rand(5, generator=generator))
                model[0].bias.copy_(torch.rand(5, generator=generator))
        model = synchronise(model, ranks, CPU)
        seen = []
        for count in (7, 4):
            shape = (count, 5) if isinstance(make(), nn.BatchNorm1d) else (count, 5, 3, 2)
            whole = torch.randn(shape, generator=generator, dtype=torch.float64) + 2
            weights = torch.randn(shape, generator=generator, dtype=torch.float64)
            part = ranks.part().share(whole).requires_grad_()
            out = model(part)
            (out * ranks.part().share(weights)).sum().backward()
            seen += [out.detach(), part.grad]
        found[name] = [*seen, *(ranks.sum(p.grad) for p in model.parameters() if p.grad is not None)]
        found[name] += model.state_dict().values()
    return found


def data() -> Loaded:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(67, 3, 4, 4, generator=generator)
    y = (x.mean((1, 2, 3)) > 0).long()
    return in_memory(x[:40], y[:40], x[40:], y[40:], batch=10, seed=0, at_once=13)


def steps(ranks: Group, training: Training = Training(epochs=2, lr=0.1)) -> dict[str, Any]:
    """Two epochs of a searched network with batch norm, its evaluation, and what rank 0 sees of a state within one."""
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 6), nn.BatchNorm1d(6), nn.ReLU(),
        nn.Linear(6, 2),
    )  # fmt: skip
    model = synchronise(convert(dense, 0, remaining=0.5, norm="train", bias="train"), ranks, CPU)
    loop = Loop(model=model, loaded=data(), training=training, device=CPU, group=ranks)
    states: list[dict[str, Any]] = []
    optimiser = loop.training.make_optimiser(model)

    def state() -> None:
        loop.reduce()
        states.append(loop.state_dict())

    results = [loop.run_epoch(optimiser, lr, state) for lr in loop.training.rates()]
    loop.group.check_masks(model)
    accuracy = accuracy_of(loop, model, loop.loaded.test)
    recalibrate(model, loop.loaded.calibrate(ranks.part()))
    return {
        "results": [(r.loss, r.accuracy) for r in results],
        "states": states,
        "accuracy": accuracy,
        "model": model.state_dict(),
        "sent": ranks.send(b"" if ranks.rank else b"bytes"),
        "nothing": ranks.send(b""),
        "highest": ranks.highest(3 + ranks.rank),
    }


def adam(ranks: Group) -> dict[str, Any]:
    """The same by Adam, at a rate that changes with each step.

    Biases before a batch norm have gradients of rounding alone, of which a small eps would make whole steps.
    """
    return steps(ranks, Training(epochs=2, lr=0.03, optimiser="adam", eps=1e-2, schedule="linear", per="step"))


def disagreement(ranks: Group) -> str:
    model = convert(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)), 0, remaining=0.5)
    ranks.check_masks(model)
    if ranks.rank == 1:
        for name in ("1", "2"):
            searched_edges(model)[name].draw_scores(1)
    try:
        ranks.check_masks(model)
    except RanksDisagree as error:
        return str(error)
    return ""


def turned(ranks: Group) -> str:
    """A sign that one process alone has turned."""
    model = convert(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), 0, remaining=0.5)
    edges = searched_edges(model)["1"]
    edges.make_room_for_draws()
    ranks.check_masks(model)
    if ranks.rank == 1:
        edges.draw_weights(edges.mask(), 1)
    try:
        ranks.check_masks(model)
    except RanksDisagree as error:
        return str(error)
    return ""


TASKS: dict[str, Callable[[Group], Any]] = {
    "norms": norms,
    "steps": steps,
    "adam": adam,
    "disagreement": disagreement,
    "turned": turned,
}


def all_tasks(ranks: Group) -> dict[str, Any]:
    return {name: task(ranks) for name, task in TASKS.items() if name != "all"}


TASKS["all"] = all_tasks


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return workers("all", tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", NORMS)
def test_batch_norm_is_that_of_the_global_batch(name: str, two: list[dict[str, Any]]) -> None:
    """Outputs and gradients of both shares, of 4 and 3 and of 2 and 2 inputs, and the running statistics of each."""
    alone = norms(ALONE)[name]
    shares = [rank["norms"][name] for rank in two]
    for number, expected in enumerate(alone):
        parts = [share[number] for share in shares]
        found = torch.cat(parts) if number < 4 else parts[0]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert number < 4 or torch.equal(parts[0], parts[1])


@pytest.mark.parametrize(("name", "task"), [("steps", steps), ("adam", adam)])
def test_steps_are_those_of_one_process_up_to_the_order_of_sums(
    name: str, task: Callable[[Group], dict[str, Any]], two: list[dict[str, Any]]
) -> None:
    alone, (first, second) = task(ALONE), (rank[name] for rank in two)
    for part, tensor in first["model"].items():
        assert torch.equal(tensor, second["model"][part]), part
        torch.testing.assert_close(tensor, alone["model"][part], rtol=1e-4, atol=1e-5)
    assert first["results"] == second["results"]
    for (loss, accuracy), (expected, right) in zip(first["results"], alone["results"], strict=True):
        assert math.isclose(loss, expected, rel_tol=1e-5)
        assert accuracy == right
    assert first["accuracy"] == second["accuracy"] == alone["accuracy"]


def test_a_state_is_that_of_all_processes(two: list[dict[str, Any]]) -> None:
    for mine, theirs in zip(two[0]["steps"]["states"], steps(ALONE)["states"], strict=True):
        assert {k: v for k, v in mine.items() if k != "losses"} == {k: v for k, v in theirs.items() if k != "losses"}
        torch.testing.assert_close(mine["losses"], theirs["losses"], rtol=1e-4, atol=1e-6)


def test_small_values_reach_all_processes(two: list[dict[str, Any]]) -> None:
    for rank in two:
        assert (rank["steps"]["sent"], rank["steps"]["nothing"], rank["steps"]["highest"]) == (b"bytes", b"", 4)


def test_masks_that_differ_are_named_on_every_rank(two: list[dict[str, Any]]) -> None:
    for rank in two:
        assert rank["disagreement"].startswith("rank 1 selects other edges than rank 0 in layer 1 (and 1 more)")


def test_an_environment_without_a_meeting_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"WORLD_SIZE=2 but RANK, LOCAL_RANK, .* start with torchrun"), group("cpu"):
        pass


def test_one_process_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    assert type(synchronise(model, ALONE, CPU)[0]) is nn.BatchNorm1d
    assert ALONE.wrap(model) is model
    with group("cpu") as (ranks, device):
        assert (ranks, device) == (ALONE, "cpu")


def test_buffers_that_differ_are_named_on_every_rank(two: list[dict[str, Any]]) -> None:
    for rank in two:
        assert "rank 1 selects other edges than rank 0 in layer 1" in rank["turned"]
