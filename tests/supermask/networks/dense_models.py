"""Dense networks to convert."""

from typing import Any

import torch
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def expected_layers(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and weight shape of what has a masked form, attention layers as their two projections."""
    found: dict[str, tuple[int, ...]] = {}
    attentions: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            found[f"{name}.in_proj"] = tuple(module.in_proj_weight.shape)
            found[f"{name}.out_proj"] = tuple(module.out_proj.weight.shape)
            attentions.append(f"{name}.")
        elif isinstance(module, (nn.Linear, *CONVOLUTIONS)) and not name.startswith(tuple(attentions)):
            found[name] = tuple(module.weight.shape)
    return found


class Everything(nn.Module):
    """One of each kind that is converted, each kind of normalisation, and tensors that have no masked form."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))
        self.embedding = nn.Embedding(5, 8)
        self.conv1d = nn.Conv1d(8, 8, 3, padding=1)
        self.bn1d = nn.BatchNorm1d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.layer_norm = nn.LayerNorm(8)
        self.conv2d = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.group_norm = nn.GroupNorm(2, 4)
        self.up2d = nn.ConvTranspose2d(4, 6, 2, stride=2)
        self.instance_norm = nn.InstanceNorm2d(6, affine=True)
        self.conv3d = nn.Conv3d(1, 4, 3, padding=1)
        self.up3d = nn.ConvTranspose3d(4, 2, 1)
        self.bn3d = nn.BatchNorm3d(2)
        self.up1d = nn.ConvTranspose1d(12, 4, 1)
        self.rms_norm = nn.RMSNorm(320)
        self.head = nn.Sequential(nn.Linear(1280, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) * self.scale
        x = self.bn1d(self.conv1d(x.transpose(1, 2))).transpose(1, 2)
        x = self.layer_norm(self.attention(x, x, x)[0])
        x = self.instance_norm(self.up2d(self.group_norm(self.conv2d(x[:, None]))))
        x = self.bn3d(self.up3d(self.conv3d(x[:, None])))
        x = self.rms_norm(self.up1d(x.flatten(1, 2).flatten(2)))
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


NORM_NAMES = ["bn1d", "layer_norm", "group_norm", "instance_norm", "bn3d", "rms_norm"]

MASKED_NAMES = [
    "conv1d", "attention.in_proj", "attention.out_proj", "conv2d", "up2d", "conv3d", "up3d", "up1d", "head.0", "head.2",
]  # fmt: skip


def tokens() -> Tensor:
    return torch.randint(5, (4, 10), generator=torch.Generator().manual_seed(0))


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10))


def only(record: list[Any]) -> Any:
    assert len(record) == 1
    return record[0]


class OwnLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 3


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What an optimiser is to move: the scores, and biases and normalisation where a policy trains them."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
