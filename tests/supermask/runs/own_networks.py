"""A user's module that registers a network, written where a test wants it."""

from pathlib import Path

NETS = '''"""Networks of a user."""

import supermask
from torch import nn

POOL = 2


@supermask.register("mine/cnn", input_shape=(1, 8, 8))
class Cnn(nn.Sequential):
    """A convolution and a linear layer."""

    def __init__(self, num_classes: int, width: int = 4, dropout: float = 0.0) -> None:
        layers = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(POOL)
        super().__init__(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(width * (8 // POOL) ** 2, num_classes))
'''


def write_nets(folder: Path, name: str = "nets_of_mine", text: str = NETS) -> str:
    """Write the module; its name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return name
