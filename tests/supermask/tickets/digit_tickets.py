"""Tickets of networks for handwritten digits, their statistics those of real images."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.tickets.errors import TicketError
from supermask.tickets.save import save
from tests.supermask.tickets.networks import mlp

CONV2 = Architecture(name="conv2", arguments={"channels": 1, "size": 8, "widths": [32, 32], "hidden": [64]})
SMALL = Architecture(name="resnet18", arguments={"width": 0.25})  # for 32x32 images
RESNET = Architecture(name="torchvision/resnet18", arguments={"num_classes": 10})
MLP = mlp(64, 96, 10)


def transformer() -> nn.Module:
    """torchvision's vision transformer, small."""
    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=10
    )


@cache
def digits(count: int, shape: tuple[int, ...]) -> Tensor:
    """Handwritten digits, enlarged and with as many channels as asked for."""
    images = torch.tensor(load_digits().images[:count], dtype=torch.float32)[:, None] / 8 - 1
    if len(shape) == 1:
        return images.reshape(count, *shape)
    return F.interpolate(images, shape[1:]).expand(-1, shape[0], -1, -1).contiguous()


def ticket(folder: Path, architecture: Architecture | None, fresh: nn.Module, x: Tensor, **saving: Any) -> Path:
    """A ticket of `fresh`, its statistics those of `x` and its other tensors none that it is built with."""
    conversion = {key: saving.pop(key) for key in ("weights", "bias", "norm", "remaining") if key in saving}
    model = convert(fresh, 7, **{"bias": "freeze", "norm": "freeze"} | conversion)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.train()(x)
        for module in model.modules():
            for name in ("weight", "bias"):
                tensor = {**module._parameters, **module._buffers}.get(name)
                if tensor is not None:
                    tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    save(model, folder / "ticket.safetensors", architecture=architecture, **{"encoding": "raw"} | saving)
    return folder / "ticket.safetensors"


def refused(call: Callable[[], Any], *parts: str) -> None:
    """`call` raises TicketError, with all of `parts` in the message."""
    with pytest.raises(TicketError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value), caught.value
