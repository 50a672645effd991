"""What is exact of a training step is held, in whatever form it runs; and what a step must do at the least."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.gpu.small import Replays, check_replays
from benchmarks.gpu.training import Setting, check_search, least, prepared
from benchmarks.roofline import resnet50
from benchmarks.search_step import RESNET18, Network
from supermask.edges.in_model import searched_edges
from tests.benchmarks.gpu.wall import CPU, WallTimer, bench

SMALL = Network(name="conv2", size=4, classes=3, arguments={"size": 4, "widths": [4, 4], "hidden": 8, "norm": True})
SETTING = Setting(network=SMALL, batch=4, dtype=torch.float32)


def test_a_step_selects_what_a_sort_selects() -> None:
    made = prepared("search", "eager", SETTING, CPU, WallTimer())
    check_search(made.step, made.model)
    layers = searched_edges(made.model)
    name = list(layers)[2]

    def with_one_edge_more() -> None:
        made.step()
        layers[name].ever[0, 0] ^= 1  # type: ignore[index]

    with pytest.raises(RuntimeError, match=rf"step 1, layer {name}: 1 of \d+ edges are selected or left where a sort"):
        check_search(with_one_edge_more, made.model)


def test_a_step_that_goes_by_older_scores_is_noticed() -> None:
    made = prepared("search", "eager", SETTING, CPU, WallTimer())

    def late() -> None:
        before = {name: edges.ever.clone() for name, edges in searched_edges(made.model).items()}  # type: ignore[union-attr]
        made.step()
        if held:
            for name, edges in searched_edges(made.model).items():
                edges.ever.copy_(held[-1][name])  # type: ignore[union-attr]
        held.append({name: edges.ever.clone() for name, edges in searched_edges(made.model).items()})  # type: ignore[union-attr]
        assert before

    held: list[dict[str, torch.Tensor]] = []
    with pytest.raises(RuntimeError, match=r"step [23], layer .* edges are selected or left where a sort"):
        check_search(late, made.model, steps=10)


def test_scores_that_stay_are_noticed() -> None:
    made = prepared("search", "eager", SETTING, CPU, WallTimer())

    def still() -> None:
        before = {name: edges.scores.detach().clone() for name, edges in searched_edges(made.model).items()}
        made.step()
        with torch.no_grad():
            for name, edges in searched_edges(made.model).items():
                edges.scores.copy_(before[name])

    with pytest.raises(RuntimeError, match=r"step 1, layer .*: the scores did not move"):
        check_search(still, made.model)


def test_replays_are_held_to_eager_steps() -> None:
    assert check_replays(bench(), Replays())["steps"] == 10

    class Stale(WallTimer):
        """Replays that go on with the numbers they were captured with."""

        def capture(self, call: Callable[[], object], *, pool: Any = None) -> Callable[[], object]:
            search = call.__self__  # type: ignore[attr-defined]
            images = search.images.clone()

            def replay() -> None:
                search.images.copy_(images)
                call()

            return replay

    with pytest.raises(RuntimeError, match=r"replay 2 in torch\.float32 differs from an eager step in \d of 6 tensors"):
        check_replays(bench(timer=Stale()), Replays())


def test_the_least_that_a_step_does() -> None:
    layers = resnet50(4)
    first = layers[0]
    setting = Setting(
        network=Network(name="torchvision/resnet50", size=224, classes=1000), batch=4, dtype=torch.bfloat16
    )
    found = least("dense", setting)
    forward = sum(layer.count * layer.operations for layer in layers)
    assert found.operations == 3 * forward - first.operations
    edges = sum(layer.count * layer.edges for layer in layers)
    numbers = sum(layer.count * (3 * layer.inputs + 2 * layer.positions * layer.rows) for layer in layers)
    assert found.bytes == 2 * (numbers - first.inputs) + 20 * edges
    assert least("search", setting).bytes == found.bytes + 4 * edges
    small = Setting(network=RESNET18, batch=1, dtype=torch.float32)
    assert least("dense", small).operations == pytest.approx(3 * 2 * 0.556e9, rel=0.02)
