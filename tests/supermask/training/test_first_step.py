"""The first step tells which layers a search is not going to change."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
import torchvision
from torch import Tensor, nn

from supermask.checks import SearchWarning
from supermask.networks.convert import convert
from supermask.training.loop import Loop
from supermask.training.score_sgd import ScoreSGD
from supermask.training.training import Training
from tests.devices import DEVICE
from tests.supermask.runs.small_runs import Points


class Aside(nn.Module):
    """Calls some of its layers by a closure, which knows the dense ones, and one not at all; a branch is scaled."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.first, self.branch, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.unused, self.called = nn.Linear(8, 8), nn.Linear(8, 8)
        self.call = lambda x, layer=self.called: layer(x)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(self.call(x) + self.scale * self.branch(x))  # type: ignore[no-any-return]


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.unused = nn.Linear(20, 4), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)  # type: ignore[no-any-return]


def step(model: nn.Module, optimiser: torch.optim.Optimizer, *, searching: bool = True) -> None:
    x = torch.randn(6, 8, device=DEVICE)
    with optimiser.searching() if searching and isinstance(optimiser, ScoreSGD) else nullcontext():
        model(x).square().sum().backward()
    optimiser.step()
    optimiser.zero_grad()


@contextmanager
def silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("searching", [True, False])
def test_layers_without_a_gradient_are_named_once(searching: bool) -> None:
    model = convert(Aside().to(DEVICE), seed=1)
    optimiser = ScoreSGD(model, lr=0.1)
    with pytest.warns(SearchWarning, match="without a gradient in the first step: unused, called: their masks stay"):
        step(model, optimiser, searching=searching)
    with silence():
        step(model, optimiser, searching=searching)


@pytest.mark.parametrize("scale", [1e-6, 0.0])
@pytest.mark.parametrize("searching", [True, False])
def test_layers_that_hardly_move_are_named(scale: float, searching: bool) -> None:
    model = convert(Aside(scale).to(DEVICE), seed=1, skip=["unused", "called"])
    with pytest.warns(SearchWarning, match="hardly moves: branch: by "):
        step(model, ScoreSGD(model, lr=0.1), searching=searching)
    with silence():
        model = convert(Aside().to(DEVICE), seed=1, skip=["unused", "called"])
        step(model, ScoreSGD(model, lr=0.1), searching=searching)


def test_a_loss_that_reaches_nothing_is_told() -> None:
    model = convert(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).to(DEVICE), seed=1)
    optimiser = ScoreSGD(model, lr=0.1)
    with optimiser.searching():
        (0 * model(torch.randn(6, 8, device=DEVICE))).sum().backward()
    with pytest.warns(SearchWarning, match="the first step moves no score: every gradient is zero"):
        optimiser.step()


@pytest.mark.filterwarnings("ignore::supermask.SparseLayerWarning")
def test_other_optimisers_in_the_loop_too() -> None:
    model = convert(Wide().to(DEVICE), seed=1)
    loop = Loop(model=model, loaded=Points().open(seed=0, device=DEVICE), training=Training(epochs=2), device=DEVICE)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for optimiser in (torch.optim.Adam(trained), torch.optim.SGD(trained, lr=0.1), ScoreSGD(model, lr=0.1)):
        with pytest.warns(SearchWarning, match="without a gradient in the first step: unused: ") as told:
            loop.run_epoch(optimiser, 0.1)
        assert len(told) == 1
        with silence():
            loop.run_epoch(optimiser, 0.1)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_networks_as_they_are_say_nothing(name: str) -> None:
    with silence():
        model = convert(getattr(torchvision.models, name)(num_classes=5), seed=1).to(DEVICE)
        optimiser = ScoreSGD(model, lr=0.1)
        with optimiser.searching():
            logits = model(torch.randn(4, 3, 32, 32, device=DEVICE))
            nn.functional.cross_entropy(logits, torch.arange(4, device=DEVICE)).backward()
        optimiser.step()
