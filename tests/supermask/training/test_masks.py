"""The masks of edge-popup while it trains, at every layer and step, against a sort of the scores."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import one_selection
from supermask.kernels.base.bits import unpack
from supermask.networks.convert import convert
from supermask.networks.rates import set_remaining
from tests.devices import CPU, DEVICE, kernels_of


def oracle(scores: Tensor, kept: int) -> Tensor:
    """The first `kept` of a stable sort from the highest down, of which only the place of the last is sorted out."""
    magnitudes = scores.detach().abs().flatten().cpu().numpy()
    tau = np.partition(magnitudes, len(magnitudes) - kept)[len(magnitudes) - kept]
    mask = magnitudes > tau
    mask[np.flatnonzero(magnitudes == tau)[: kept - mask.sum()]] = True
    return torch.from_numpy(mask).view(len(scores), -1)


@pytest.mark.parametrize("kept", [1, 7, 499, 500])
def test_the_oracle_is_a_sort(kept: int) -> None:
    scores = (torch.randn(20, 25, generator=torch.Generator().manual_seed(kept)) * 8).round()
    order = torch.sort(scores.abs().flatten(), descending=True, stable=True).indices
    expected = torch.zeros(500, dtype=torch.bool).index_fill_(0, order[:kept], True)
    assert torch.equal(oracle(scores, kept).flatten(), expected)


def train(
    model: nn.Module, steps: int, batch: Callable[[], tuple[Tensor, Tensor]], remaining: float, grid: float = 0.0
) -> int:
    """EP on `batch`, each mask compared that a forward used; how often the mask of a layer was another than before.

    With a `grid`, scores are rounded to its multiples before each forward, so that many tie.
    """
    layers = searched_edges(model)
    kept = {name: max(1, round(remaining * edges.count)) for name, edges in layers.items()}
    before: dict[str, Tensor] = {}
    changed = 0
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    for step in range(steps):
        for edges in layers.values():
            edges.ever = torch.zeros_like(edges.mask()) if edges.ever is None else edges.ever.zero_()
            if grid:
                edges.scores.detach().div_(grid).round_().mul_(grid)
        x, target = batch()
        with one_selection(model):
            F.cross_entropy(model(x), target).backward()
        for name, edges in layers.items():
            mask = oracle(edges.scores, kept[name]).to(edges.scores.device)
            assert torch.equal(unpack(ever(edges), edges.cols), mask), (step, name)
            if step in (0, steps - 1):
                assert torch.equal(unpack(edges.mask(), edges.cols), mask), (step, name)
                assert torch.equal(edges(torch.float32).view(mask.shape) != 0, mask), (step, name)
            changed += name in before and not torch.equal(before[name], mask)
            before[name] = mask
        optimiser.step()
        optimiser.zero_grad()
    return changed


def ever(edges: SearchedEdges) -> Tensor:
    assert edges.ever is not None
    return edges.ever


def images(size: int, count: int, channels: int = 3) -> Callable[[], tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(count, channels, size, size, generator=generator)
        return x.to(DEVICE), torch.randint(10, (count,), generator=generator).to(DEVICE)

    return batch


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 10, bias=False),
    )


@pytest.mark.slow
def test_resnet18_selects_what_a_sort_selects() -> None:
    model = convert(torchvision.models.resnet18(num_classes=10), 0, remaining=0.3).to(DEVICE)
    assert len(searched_edges(model)) == 21
    assert train(model, 20, images(32, 8), 0.3) > 19 * 20


@pytest.mark.slow
def test_triton_s_kernels_select_what_a_sort_selects(triton_device: torch.device) -> None:
    model = convert(conv_net(), 0, remaining=0.3).to(triton_device)
    assert train(model, 20, images(8, 4, 1), 0.3) > 19 * 2


@pytest.mark.parametrize("remaining", [0.01, 0.3, 0.9])
@pytest.mark.filterwarnings("ignore::supermask.SparseLayerWarning")
def test_small_network_at_other_rates(remaining: float) -> None:
    model = convert(conv_net(), 1, remaining=0.5).to(DEVICE)
    set_remaining(model, remaining)
    assert train(model, 10, images(8, 16, 1), remaining)


@pytest.mark.parametrize("kernels", ["torch", "native", "triton"])
def test_ties_are_cut_in_every_layer(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERMASK_KERNELS", kernels_of(kernels))
    model = convert(conv_net(), 0, remaining=0.3).to(DEVICE)
    for edges in searched_edges(model).values():
        keys = (edges.scores.detach() * 16).round().abs().flatten().sort(descending=True).values
        assert keys[int(edges.kept) - 1] == keys[int(edges.kept)]
    train(model, 2, images(8, 4, 1), 0.3, grid=1 / 16)


def test_training_is_the_same_on_every_path_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, masks and score gradients are equal to the bit, so scores after steps are too; the rest of a network,
    which PyTorch computes, is so on one device alone."""

    def scores() -> list[Tensor]:
        model = convert(conv_net(), 0, remaining=0.3, weights="scaled_signed_constant")
        optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
        batch = images(8, 4, 1)
        for _ in range(2):
            x, target = (each.to(CPU) for each in batch())
            F.cross_entropy(model(x), target).backward()
            optimiser.step()
            optimiser.zero_grad()
        return [edges.scores.detach() for edges in searched_edges(model).values()]

    monkeypatch.setenv("SUPERMASK_KERNELS", "torch")
    expected = scores()
    monkeypatch.setenv("SUPERMASK_KERNELS", kernels_of("triton"))
    for found, wanted in zip(scores(), expected, strict=True):
        assert torch.equal(found, wanted)
