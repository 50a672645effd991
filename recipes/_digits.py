"""What the digits recipes share: the network and the settings of one cycle."""

from supermask.networks import Architecture
from supermask.train import Training


def network(classes: int) -> Architecture:
    """MLP 64-256-256-classes without biases, batch norm after the hidden layers."""
    return Architecture(name="mlp", arguments={"sizes": [64, 256, 256, classes]})


TRAINING = Training(epochs=10, lr=0.3, momentum=0.9, weight_decay=1e-4)
FINAL = 1 / 32
CYCLES = 5
