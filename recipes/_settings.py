"""The data sets, networks and schedules that the recipes run with; sources in each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
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
    Network,
    Training,
    Validation,
    down_to,
    exports,
    shrinking,
)
from supermask.runs import LATER, Grown

DataName = Literal["digits", "digits32", "cifar10", "cifar100", "svhn", "imagenet"]


@dataclass(frozen=True, kw_only=True)
class Other:
    """The network of all runs.

    Attributes:
        name: in the registry; by default the data set's own network.
        arguments: of its builder, besides the number of classes.
        config: file with the configuration of one of transformers' networks.
    """

    name: str | None = None
    arguments: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    config: Path | None = None

    def __post_init__(self) -> None:
        if self.name is None and (self.arguments or self.config):
            given = f"arguments={dict(self.arguments)}" if self.arguments else f"config={self.config}"
            raise ValueError(f"network.{given}: of which network? Give --network.name, too")

    def made(self) -> Network | None:
        """It; None where there is none."""
        return None if self.name is None else Network(name=self.name, arguments=self.arguments, config=self.config)


USUAL_NETWORK = Other()


@dataclass(frozen=True, kw_only=True, repr=False)
class Mlp(Grown):
    """Linear layers without biases, batch norm and ReLU between them; or any other network, by its name.

    Attributes:
        inputs: features of one input.
        hidden: features of the hidden layers.
        name: in the registry, of another network.
        arguments: of its builder, besides the number of classes.
        config: file with the configuration of one of transformers' networks (config.json).
    """

    inputs: int = 64
    hidden: tuple[int, ...] = (256, 256)
    name: str = field(default="mlp", metadata=LATER)
    arguments: Mapping[str, bool | int | float | str] = field(default_factory=dict, metadata=LATER)
    config: Path | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        other = self.name != "mlp"
        usual = {one.name: one.default for one in fields(self)}
        for name in ("inputs", "hidden") if other else ("config",):
            if getattr(self, name) != usual[name]:
                of = "mlp" if other else "networks of transformers"
                raise ValueError(
                    f"network.{name}={getattr(self, name)}: it is of {of}, and the network is {self.name}: leave it out"
                )
        if not other and "sizes" in self.arguments:
            raise ValueError(
                f"network.arguments sizes={self.arguments['sizes']}: give network.inputs and network.hidden instead"
            )

    def __call__(self, classes: int) -> Architecture:
        if self.name != "mlp":
            return Network(name=self.name, arguments=self.arguments, config=self.config)(classes)
        sizes = [self.inputs, *self.hidden, classes]
        return Architecture(name="mlp", arguments={"sizes": sizes, **self.arguments})


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


def layout_for(network: Callable[[int], Architecture], data: Digits) -> Literal["flat", "image"]:
    """How a network takes the digits: flat where that is known of it, as images else."""
    shape = exports.input_shape(network(data.about().classes))
    return "flat" if shape is not None and len(shape) == 1 else "image"


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
