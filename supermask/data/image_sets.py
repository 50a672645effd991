"""CIFAR-10, CIFAR-100, SVHN and MNIST: kept on the training device as bytes, augmented there a batch at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch

from supermask.checks import check_choice
from supermask.data.base import About, Loaded, in_memory
from supermask.data.held_out import Evaluated, check_held_out
from supermask.data.image_files import Images, Source, read_cifar, read_mnist, read_svhn, require
from supermask.data.pixels import RandomCrop, normalised
from supermask.later import LATER, Grown

Augmentation = Literal["crop_flip", "crop", "none"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set as it is published.

    Attributes:
        name: of the set.
        about: its classes, images and shape.
        sources: the files, and where they come from.
        read: training and test images from the folder that holds the files.
        mean, std: of the training pixels, by channel, as fractions of white.
    """

    name: str
    about: About
    sources: Sequence[Source]
    read: Callable[[Path], tuple[Images, Images]]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, repr=False)
class Coloured(Grown):
    """What a user says of a set of coloured images.

    Attributes:
        root: folder that holds the files.
        batch: training batch size over all processes; an incomplete last batch is dropped.
        augment: `crop_flip` crops at random from the image padded by 4 pixels and mirrors every other one.
        download: fetch what is missing.
        hold_out: so many training images are not trained on, the same ones for every seed. Of CIFAR's 50,000 IteRand's
            paper holds out 5,000: its numbers are of 90 % of the training data.
        evaluate: what accuracies are of: the `test` set, or the `held_out` images, which are used for nothing else.
    """

    root: Path = Path("data")
    batch: int = 128
    augment: Augmentation = "crop_flip"
    download: bool = field(default=False, repr=False)
    hold_out: int = field(default=0, metadata=LATER)
    evaluate: Evaluated = field(default="test", metadata=LATER)

    published: ClassVar[Published]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "root", Path(self.root))  # a string will do
        check_choice("augment", self.augment, Augmentation)
        check_held_out(self.hold_out, self.published.about.train, self.evaluate)

    def about(self) -> About:
        return replace(self.published.about, train=self.published.about.train - self.hold_out)

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        require(self.published.name, self.root, self.published.sources, download=self.download)
        images = self.published.read(self.root)
        loaded = on_device(
            self.published, *images, self.batch, self.augment, seed=seed, device=device, hold_out=self.hold_out
        )
        return loaded.evaluated_on(self.evaluate)


def on_device(
    published: Published,
    train: Images,
    test: Images,
    batch: int,
    augment: Augmentation,
    *,
    seed: int,
    device: torch.device,
    hold_out: int = 0,
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
        classes=published.about.classes,
        augment=None if augment == "none" else RandomCrop(flip=augment == "crop_flip"),
        prepare=normalised(published.mean, published.std, device),
        hold_out=hold_out,
    )


_CIFAR10_TRAIN = [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)]
_CIFAR10_TEST = "cifar-10-batches-bin/test_batch.bin"
_CIFAR10 = Published(
    name="CIFAR-10",
    about=About(classes=10, train=50_000, shape=(3, 32, 32)),
    sources=[
        Source(
            urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            files=(*_CIFAR10_TRAIN, _CIFAR10_TEST),
        )
    ],
    read=lambda root: (
        read_cifar([root / file for file in _CIFAR10_TRAIN], labels=[10]),
        read_cifar([root / _CIFAR10_TEST], labels=[10]),
    ),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)


@dataclass(frozen=True, kw_only=True, repr=False)
class CIFAR10(Coloured):
    """CIFAR-10 in its binary version.

    Attributes:
        root: folder that holds cifar-10-batches-bin.
    """

    root: Path = Path("data/cifar10")

    published = _CIFAR10


_CIFAR100_FILES = "cifar-100-binary/train.bin", "cifar-100-binary/test.bin"
_CIFAR100 = Published(
    name="CIFAR-100",
    about=About(classes=100, train=50_000, shape=(3, 32, 32)),
    sources=[
        Source(
            urls=("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
            md5="03b5dce01913d631647c71ecec9e9cb8",
            files=_CIFAR100_FILES,
        )
    ],
    read=lambda root: (
        read_cifar([root / _CIFAR100_FILES[0]], labels=[20, 100]),
        read_cifar([root / _CIFAR100_FILES[1]], labels=[20, 100]),
    ),
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


@dataclass(frozen=True, kw_only=True, repr=False)
class CIFAR100(Coloured):
    """CIFAR-100 with its 100 fine labels, in its binary version.

    Attributes:
        root: folder that holds cifar-100-binary.
    """

    root: Path = Path("data/cifar100")

    published = _CIFAR100


_SVHN_AT = "http://ufldl.stanford.edu/housenumbers/"
_SVHN = Published(
    name="SVHN",
    about=About(classes=10, train=73_257, shape=(3, 32, 32)),
    sources=[
        Source(urls=(_SVHN_AT + "train_32x32.mat",), md5="e26dedcc434d2e4c54c9b2d4a06d8373"),
        Source(urls=(_SVHN_AT + "test_32x32.mat",), md5="eb5a983be6a315427106f1b164d9cef3"),
    ],
    read=lambda root: (read_svhn(root / "train_32x32.mat"), read_svhn(root / "test_32x32.mat")),
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
)


@dataclass(frozen=True, kw_only=True, repr=False)
class SVHN(Coloured):
    """Street View House Numbers, cropped digits, without the extra images.

    Attributes:
        root: folder that holds train_32x32.mat and test_32x32.mat.
        augment: `crop_flip` crops at random from the image padded by 4 pixels and mirrors every other one, as the
            soft iEP paper does; `crop` leaves the digits the right way round.
    """

    root: Path = Path("data/svhn")

    published = _SVHN


_MNIST_AT = "https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"
_MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


def _read_mnist(root: Path) -> tuple[Images, Images]:
    train_images, train_labels, test_images, test_labels = (root / name for name in _MNIST_FILES)
    return read_mnist(train_images, train_labels), read_mnist(test_images, test_labels)


_MNIST = Published(
    name="MNIST",
    about=About(classes=10, train=60_000, shape=(1, 28, 28)),
    sources=[
        Source(urls=tuple(address + name for address in _MNIST_AT), md5=md5) for name, md5 in _MNIST_FILES.items()
    ],
    read=_read_mnist,
    mean=(0.1307,),
    std=(0.3081,),
)


@dataclass(frozen=True, kw_only=True, repr=False)
class MNIST(Grown):
    """MNIST's handwritten digits, not augmented.

    Attributes:
        root: folder that holds the four IDX files, with .gz or without.
        batch: training batch size over all processes; an incomplete last batch is dropped.
        download: fetch what is missing.
        hold_out: so many training images are not trained on, the same ones for every seed.
        evaluate: what accuracies are of: the `test` set, or the `held_out` images.
    """

    root: Path = Path("data/mnist")
    batch: int = 128
    download: bool = field(default=False, repr=False)
    hold_out: int = field(default=0, metadata=LATER)
    evaluate: Evaluated = field(default="test", metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "root", Path(self.root))  # a string will do
        check_held_out(self.hold_out, _MNIST.about.train, self.evaluate)

    def about(self) -> About:
        return replace(_MNIST.about, train=_MNIST.about.train - self.hold_out)

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        require(_MNIST.name, self.root, _MNIST.sources, download=self.download)
        images = _MNIST.read(self.root)
        loaded = on_device(_MNIST, *images, self.batch, "none", seed=seed, device=device, hold_out=self.hold_out)
        return loaded.evaluated_on(self.evaluate)
