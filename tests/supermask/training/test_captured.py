"""Captured steps are steps as they are, to the bit; on a CPU by a stand-in for CUDA graphs (tests/graphs.py)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from supermask import ScoreSGD, set_remaining
from supermask.edges.in_model import searched_edges
from supermask.edges.rules import TopKept
from supermask.methods.edge_popup import EP
from supermask.methods.multicoated import Multicoated
from supermask.training import measures
from supermask.training.captured import WARMUP, CapturedStep, CaptureError, capturable
from tests.devices import DEVICE, On
from tests.graphs import graphs  # noqa: F401
from tests.supermask.training.test_score_sgd import batches, network

Step = Callable[[tuple[Tensor, Tensor]], tuple[Tensor, Tensor | None]]


def searching(**changes: Any) -> tuple[nn.Module, ScoreSGD, Step]:
    """A network, its optimiser, and a step of both as it is."""
    model = network(**changes).to(DEVICE)
    measures.track(model)
    optimiser = ScoreSGD(model, lr=0.5, momentum=0.9, weight_decay=1e-3)
    capturable(optimiser, DEVICE)

    def step(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
        with optimiser.searching():
            logits = model(batch[0])
            loss = F.cross_entropy(logits, batch[1])
            loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.detach(), (logits.argmax(1) == batch[1]).sum()

    return model, optimiser, step


def state(model: nn.Module, optimiser: torch.optim.Optimizer) -> list[Tensor]:
    slots = [value for slot in optimiser.state.values() for value in slot.values() if isinstance(value, Tensor)]
    return [*model.state_dict().values(), *slots]


def harden(model: nn.Module) -> None:
    for edges in searched_edges(model).values():
        edges.remove_unselected()


def scramble(model: nn.Module) -> None:
    with torch.no_grad():
        for edges in searched_edges(model).values():
            edges.scores.copy_(edges.scores.flip(0))


def freeze(model: nn.Module) -> None:
    next(iter(searched_edges(model).values())).scores.requires_grad_(False)


def settle(model: nn.Module) -> None:
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()


BETWEEN: dict[str, tuple[Callable[[nn.Module], object], int]] = {
    "nothing": (lambda model: None, 1),
    "other scores": (scramble, 1),
    "another rate": (lambda model: set_remaining(model, 0.1), 1),
    "fewer survivors": (harden, 2),
    "a frozen layer": (freeze, 2),
    "a module's mode": (settle, 2),
}


@pytest.mark.parametrize(
    "changes", [{}, {"magnitude": "raw"}, {"bias": "train", "norm": "train"}, {"weights": "kaiming_normal"}]
)
@pytest.mark.parametrize("between", BETWEEN)
def test_replays_are_steps_to_the_bit(between: str, changes: dict[str, Any], graphs: list[int]) -> None:  # noqa: F811
    change, captures = BETWEEN[between]
    (ours, own, step), (theirs, other, plain) = searching(**changes), searching(**changes)
    taken = CapturedStep(step, ours, own)
    for index, batch in enumerate(On(DEVICE)(batches(WARMUP + 8))):
        if index == WARMUP + 4:
            change(ours)
            change(theirs)
        for optimiser in (own, other):
            for group in optimiser.param_groups:
                group["lr"].fill_(0.5 / (index + 1))
        found, expected = taken(batch), plain(batch)
        assert all(map(torch.equal, found, expected))
        assert all(map(torch.equal, state(ours, own), state(theirs, other)))
    assert len(graphs) == captures


def test_replays_look_at_no_score_twice_and_are_counted_as_writes(
    graphs: list[int],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    selections: list[int] = []
    thresholds = TopKept.thresholds

    def counted(rule: TopKept, layers: Any) -> Any:
        selections.append(len(layers))
        return thresholds(rule, layers)

    monkeypatch.setattr(TopKept, "thresholds", counted)
    model, optimiser, step = searching()
    taken = CapturedStep(step, model, optimiser)
    *before, last = On(DEVICE)(batches(WARMUP + 6))
    for batch in before:
        taken(batch)
    assert len(selections) == 1, "the first step's"
    loss = sum(edges.scores.square().sum() for edges in searched_edges(model).values())
    taken(last)
    assert isinstance(loss, Tensor)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    assert (len(selections), len(graphs)) == (1, 1)


def test_batches_of_another_shape_are_stepped_as_they_are(graphs: list[int]) -> None:  # noqa: F811
    """And what a batch's strides are is no matter."""
    (ours, own, step), (theirs, other, plain) = searching(), searching()
    called: list[int] = []

    def counted(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
        called.append(len(batch[1]))
        return step(batch)

    taken = CapturedStep(counted, ours, own)
    for index, (x, y) in enumerate(On(DEVICE)(batches(WARMUP + 9))):
        short = index % 3 == 1
        batch = (x[:5], y[:5]) if short else (x.transpose(2, 3), y) if index % 2 else (x, y)
        assert all(map(torch.equal, taken(batch), plain(batch)))
        assert all(map(torch.equal, state(ours, own), state(theirs, other)))
    # Of 8 whole ones three are taken as they are, the fourth is captured; all 4 short ones are.
    assert called == [8, 5, 8, 8, 5, 8, 5, 5]
    assert len(graphs) == 1


class Watching(TorchDispatchMode):
    """The names of the operations within."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def to_fake_gpu(model: nn.Module) -> None:
    """Tensors of a GPU that need not be there, which refuse to tell a value."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):  # no public way replaces both in place
            for name, tensor in held.items():
                if tensor is not None:
                    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
                    is_parameter = isinstance(tensor, nn.Parameter)
                    held[name] = nn.Parameter(made, tensor.requires_grad) if is_parameter else made


@pytest.mark.parametrize("case", ["one coat", "raw", "survivors", "three coats", "weights given"])
def test_a_step_asks_the_device_for_nothing_and_sends_it_nothing(case: str) -> None:
    """Traced on a GPU's path. Forward and step: of backward there is one operation more a layer."""
    method = Multicoated(coats=3) if case == "three coats" else EP(remaining=0.5)
    changes = {"raw": {"magnitude": "raw"}, "weights given": {"weights": "kaiming_normal"}}.get(case, {})
    model = network(**changes, edges=method.edges)
    measures.track(model)
    if case == "survivors":
        harden(model)
    with FakeTensorMode():
        to_fake_gpu(model)
        optimiser = ScoreSGD(model, lr=0.5, momentum=0.9, weight_decay=1e-3)
        capturable(optimiser, torch.device("cuda"))
        inputs = torch.empty(8, 3, 8, 8, device="cuda")

        def step() -> None:
            with optimiser.searching():
                model(inputs)
            for edges in searched_edges(model).values():
                edges.scores.grad = torch.empty_like(edges.scores)
            optimiser.step()
            optimiser.zero_grad()

        step()  # what is made once
        with Watching() as watching:
            step()
    assert {"supermask::subnet", "supermask::score_step"} <= watching.names
    sent = {"aten::_to_copy", "aten::lift_fresh", "aten::_local_scalar_dense", "aten::nonzero", "aten::_pin_memory"}
    assert not sent & watching.names


def test_without_graphs_it_says_so_at_once() -> None:
    model = network()
    with pytest.raises(CaptureError, match="capture=True on cpu: steps are captured in CUDA graphs; train on a GPU"):
        CapturedStep(lambda batch: (batch[0], None), model, ScoreSGD(model, lr=0.1))
