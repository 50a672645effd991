"""Networks for tickets to be of: small, odd, and as if they had been searched."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.networks.layers import SupermaskConv2d, SupermaskLinear
from supermask.tickets.errors import TicketError
from supermask.tickets.load import load


def mlp(*sizes: int) -> Architecture:
    return Architecture(name="mlp", arguments={"sizes": list(sizes)})


def lived(model: nn.Module, *shape: int, seed: int = 0) -> nn.Module:
    """`model` after as much change to scores, statistics and left parameters as a search would make."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.train()(torch.randn(shape, generator=generator))
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if isinstance(tensor, nn.Parameter) or name.endswith("bias"):
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def searched(architecture: Architecture, *shape: int, seed: int = 7, **conversion: Any) -> nn.Module:
    return lived(convert(architecture.build(), seed, **conversion), *shape)


def one_linear(**search: Any) -> nn.Module:
    return SupermaskLinear(4, 4, **search)


def refused(path: Path, *parts: str, model: nn.Module | None = None) -> None:
    """`load` raises TicketError, with the file and all of `parts` in the message."""
    with pytest.raises(TicketError) as caught:
        load(path, model=model)
    for part in (str(path), *parts):
        assert part in str(caught.value), part


class ConvNet(nn.Module):
    """Odd sizes, groups, a transposed convolution, batch and layer norm, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.down = nn.Conv2d(6, 10, 3, stride=2, groups=2, padding_mode="reflect", padding=1)
        self.up = nn.ConvTranspose2d(10, 4, 3, stride=2, output_padding=1)
        self.average = nn.BatchNorm2d(4, momentum=None)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.norm = nn.LayerNorm(16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(self.bn(self.stem(x * self.scale)).relu())
        return self.fc(self.norm(self.pool(self.average(self.up(x.relu()))).flatten(1)))


class Attention(nn.Module):
    """Two attention layers and a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.MultiheadAttention(12, 3, batch_first=True)
        self.second = nn.MultiheadAttention(12, 3, batch_first=True)
        self.fc = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x, x, x, need_weights=False)[0]
        return self.fc(self.second(x, x, x, need_weights=False)[0])


class Tied(nn.Module):
    """An embedding that is also the output layer, and one layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.twice = nn.Linear(6, 6)
        self.again = self.twice
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedding((x.abs() * 5).long().clamp(max=10))
        return self.out(self.again(self.twice(x).relu()))


class Masked(nn.Module):
    """Masked layers written by hand, one bias trained and one fixed."""

    def __init__(self, seed: int = 5) -> None:
        super().__init__()
        bias = nn.Parameter(torch.linspace(-1, 1, 4))
        self.conv = SupermaskConv2d(2, 4, 3, bias=bias, seed=seed, layer=8, remaining=0.4)
        self.fc = SupermaskLinear(4, 3, torch.ones(3), seed=seed, layer=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).amax((2, 3)))
