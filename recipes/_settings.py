"""The data sets, networks and schedules that the recipes run with; sources in each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from supermask import (
    CIFAR10,
    CIFAR100,
    SVHN,
    Architecture,
    Data,
    Digits,
    Digits32,
    ImageFolder,
    Training,
    Validation,
    down_to,
    shrinking,
)

DataName = Literal["digits", "digits32", "cifar10", "cifar100", "svhn", "imagenet"]


@dataclass(frozen=True, kw_only=True)
class Network:
    """An architecture of the registry, for the number of classes that the data set has.

    Attributes:
        name: in the registry: resnet18, conv8, vgg16_bn, resnext29_32x4d, convmixer, torchvision/resnet50, ...
        arguments: of its builder, besides the number of classes: width 2.0 doubles the channels of resnet18.
    """

    name: str
    arguments: Mapping[str, bool | int | float | str] = field(default_factory=dict)

    def __call__(self, classes: int) -> Architecture:
        return Architecture(name=self.name, arguments={**self.arguments, "num_classes": classes})


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """Linear layers without biases, batch norm and ReLU between them.

    Attributes:
        inputs: features of one input.
        hidden: features of the hidden layers.
    """

    inputs: int = 64
    hidden: tuple[int, ...] = (256, 256)

    def __call__(self, classes: int) -> Architecture:
        return Architecture(name="mlp", arguments={"sizes": [self.inputs, *self.hidden, classes]})


@dataclass(frozen=True, kw_only=True)
class SmallConv4:
    """Conv4 for scikit-learn's 8x8 digits, with batch norm.

    Attributes:
        widths: channels after each convolution.
        hidden: features of the hidden linear layer.
    """

    widths: tuple[int, ...] = (16, 16, 32, 32)
    hidden: int = 64

    def __call__(self, classes: int) -> Architecture:
        small = {"channels": 1, "size": 8, "widths": self.widths, "hidden": self.hidden, "norm": True}
        return Architecture(name="conv4", arguments={**small, "num_classes": classes})


NO_VALIDATION = Validation(every=0)

DIGITS = Training(epochs=10, lr=0.3, momentum=0.9, weight_decay=1e-4)
DIGITS_RATES = down_to(1 / 32, 5)
# IteRand draws again every 24 of the 31 steps of an epoch, as on CIFAR-10 every 300 of 390.
DIGITS_METHODS: Mapping[str, Any] = {"cycles": 5, "final": 1 / 32, "remaining": 1 / 32, "every": 24}

# "Soft iEP: on the exploration inefficacy of gradient-based strong lottery exploration", section 5.
SMALL_IMAGES = Training(epochs=100, lr=0.1, momentum=0.9, weight_decay=1e-4)
SMALL_IMAGES_RATES = shrinking(0.2, 15)
SMALL_IMAGES_METHODS: Mapping[str, Any] = {"cycles": 15}
IMAGENET = Training(epochs=100, lr=0.3, momentum=0.875, weight_decay=3e-5, warmup=5)
IMAGENET_RATES = down_to(0.3, 3)
IMAGENET_METHODS: Mapping[str, Any] = {"cycles": 3, "final": 0.3, "remaining": 0.3, "every": 1000}

RESNET18 = Network(name="resnet18")
WIDE_RESNET50 = Network(name="torchvision/wide_resnet50_2")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a grid runs with on one data set.

    Attributes:
        data, network, training: of every run.
        rates: remaining, cycle by cycle.
        methods: settings of those methods that have them.
    """

    data: Data
    network: Network | Mlp | SmallConv4
    training: Training
    rates: tuple[float, ...]
    methods: Mapping[str, Any] = field(default_factory=dict)


SETTINGS: Mapping[DataName, Setting] = {
    "digits": Setting(data=Digits(), network=Mlp(), training=DIGITS, rates=DIGITS_RATES, methods=DIGITS_METHODS),
    "digits32": Setting(
        data=Digits32(), network=RESNET18, training=SMALL_IMAGES, rates=SMALL_IMAGES_RATES, methods=SMALL_IMAGES_METHODS
    ),
    "cifar10": Setting(
        data=CIFAR10(), network=RESNET18, training=SMALL_IMAGES, rates=SMALL_IMAGES_RATES, methods=SMALL_IMAGES_METHODS
    ),
    "cifar100": Setting(
        data=CIFAR100(), network=RESNET18, training=SMALL_IMAGES, rates=SMALL_IMAGES_RATES, methods=SMALL_IMAGES_METHODS
    ),
    "svhn": Setting(
        data=SVHN(), network=RESNET18, training=SMALL_IMAGES, rates=SMALL_IMAGES_RATES, methods=SMALL_IMAGES_METHODS
    ),
    "imagenet": Setting(
        data=ImageFolder(), network=WIDE_RESNET50, training=IMAGENET, rates=IMAGENET_RATES, methods=IMAGENET_METHODS
    ),
}
