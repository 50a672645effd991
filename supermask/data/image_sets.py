"""CIFAR-10, CIFAR-100, SVHN and MNIST: kept on the training device as bytes, augmented there a batch at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from supermask.checks import check_choice
from supermask.data.base import About, Loaded, in_memory
from supermask.data.image_files import Images, Source, read_cifar, read_mnist, read_svhn, require
from supermask.data.pixels import RandomCrop, normalised

Augmentation = Literal["crop_flip", "crop", "none"]


@dataclass(frozen=True, kw_only=True)
class CIFAR10:
    """CIFAR-10 in its binary version.

    Attributes:
        root: folder that holds cifar-10-batches-bin.
        batch: training batch size over all processes; an incomplete last batch is dropped.
        augment: `crop_flip` crops at random from the image padded by 4 pixels and mirrors every other one.
        download: fetch what is missing.
    """

    root: Path = Path("data/cifar10")
    batch: int = 128
    augment: Augmentation = "crop_flip"
    download: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("augment", self.augment, Augmentation)

    def about(self) -> About:
        return About(classes=10, train=50_000, shape=(3, 32, 32))

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        folder = "cifar-10-batches-bin"
        train = [f"{folder}/data_batch_{number}.bin" for number in range(1, 6)]
        test = f"{folder}/test_batch.bin"
        source = Source(
            urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            files=(*train, test),
        )
        require("CIFAR-10", self.root, [source], download=self.download)
        return on_device(
            read_cifar([self.root / file for file in train], labels=[10]),
            read_cifar([self.root / test], labels=[10]),
            normalise=normalised((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), device),
            augment=self.augment,
            batch=self.batch,
            seed=seed,
            device=device,
        )


@dataclass(frozen=True, kw_only=True)
class CIFAR100:
    """CIFAR-100 with its 100 fine labels, in its binary version.

    Attributes:
        root: folder that holds cifar-100-binary.
        batch: training batch size over all processes; an incomplete last batch is dropped.
        augment: `crop_flip` crops at random from the image padded by 4 pixels and mirrors every other one.
        download: fetch what is missing.
    """

    root: Path = Path("data/cifar100")
    batch: int = 128
    augment: Augmentation = "crop_flip"
    download: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("augment", self.augment, Augmentation)

    def about(self) -> About:
        return About(classes=100, train=50_000, shape=(3, 32, 32))

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        train, test = "cifar-100-binary/train.bin", "cifar-100-binary/test.bin"
        source = Source(
            urls=("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
            md5="03b5dce01913d631647c71ecec9e9cb8",
            files=(train, test),
        )
        require("CIFAR-100", self.root, [source], download=self.download)
        return on_device(
            read_cifar([self.root / train], labels=[20, 100]),
            read_cifar([self.root / test], labels=[20, 100]),
            normalise=normalised((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), device),
            augment=self.augment,
            classes=100,
            batch=self.batch,
            seed=seed,
            device=device,
        )


@dataclass(frozen=True, kw_only=True)
class SVHN:
    """Street View House Numbers, cropped digits, without the extra images.

    Attributes:
        root: folder that holds train_32x32.mat and test_32x32.mat.
        batch: training batch size over all processes; an incomplete last batch is dropped.
        augment: `crop_flip` crops at random from the image padded by 4 pixels and mirrors every other one, as the
            soft iEP paper does; `crop` leaves the digits the right way round.
        download: fetch what is missing.
    """

    root: Path = Path("data/svhn")
    batch: int = 128
    augment: Augmentation = "crop_flip"
    download: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("augment", self.augment, Augmentation)

    def about(self) -> About:
        return About(classes=10, train=73_257, shape=(3, 32, 32))

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        address = "http://ufldl.stanford.edu/housenumbers/"
        sources = [
            Source(urls=(address + "train_32x32.mat",), md5="e26dedcc434d2e4c54c9b2d4a06d8373"),
            Source(urls=(address + "test_32x32.mat",), md5="eb5a983be6a315427106f1b164d9cef3"),
        ]
        require("SVHN", self.root, sources, download=self.download)
        train, test = (read_svhn(self.root / source.name) for source in sources)
        return on_device(
            train,
            test,
            normalise=normalised((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), device),
            augment=self.augment,
            batch=self.batch,
            seed=seed,
            device=device,
        )


@dataclass(frozen=True, kw_only=True)
class MNIST:
    """MNIST's handwritten digits, not augmented.

    Attributes:
        root: folder that holds the four IDX files, with .gz or without.
        batch: training batch size over all processes; an incomplete last batch is dropped.
        download: fetch what is missing.
    """

    root: Path = Path("data/mnist")
    batch: int = 128
    download: bool = field(default=False, repr=False)

    def about(self) -> About:
        return About(classes=10, train=60_000, shape=(1, 28, 28))

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        addresses = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
        published = {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        }
        sources = [
            Source(urls=tuple(address + name for address in addresses), md5=md5) for name, md5 in published.items()
        ]
        require("MNIST", self.root, sources, download=self.download)
        train_images, train_labels, test_images, test_labels = (self.root / name for name in published)
        return on_device(
            read_mnist(train_images, train_labels),
            read_mnist(test_images, test_labels),
            normalise=normalised((0.1307,), (0.3081,), device),
            augment="none",
            batch=self.batch,
            seed=seed,
            device=device,
        )


def on_device(
    train: Images,
    test: Images,
    *,
    normalise: Callable[[Tensor], Tensor],
    augment: Augmentation,
    batch: int,
    seed: int,
    device: torch.device,
    classes: int = 10,
) -> Loaded:
    """Batches of images that stay on `device` as bytes; see `supermask.in_memory`."""
    x_train, y_train, x_test, y_test = (torch.tensor(part, device=device) for part in (*train, *test))
    return in_memory(
        x_train,
        y_train,
        x_test,
        y_test,
        batch=batch,
        seed=seed,
        classes=classes,
        augment=None if augment == "none" else RandomCrop(flip=augment == "crop_flip"),
        prepare=normalise,
    )
