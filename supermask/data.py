"""Data sets, as configurations that open into batches on the training device.

Small sets live on the device whole; image folders decode in worker processes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from supermask.evaluate import Batch


class DataMissing(Exception):
    """A data set is not where the recipe looks for it; the message says what to download and where to put it."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An open data set.

    Attributes:
        classes: number of labels.
        steps: training batches an epoch.
        train: batches of one epoch; its order is a function of the epoch's number.
        test: the test batches.
        calibrate: training batches without augmentation or shuffling, for batch-norm statistics.
    """

    classes: int
    steps: int
    train: Callable[[int], Iterator[Batch]]
    test: Callable[[], Iterator[Batch]]
    calibrate: Callable[[], Iterator[Batch]]


class Data(Protocol):
    """A data set as a recipe takes it: a frozen dataclass whose fields become flags, with a method `open`."""

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        """Load the set; `seed` orders the training batches.

        Raises:
            DataMissing: the files are not there.
        """
        ...


def _channels_last(inputs: Tensor) -> Tensor:
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


def _epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Random order of one epoch, the same whatever ran before it."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63))


@dataclass(frozen=True, kw_only=True)
class Digits:
    """scikit-learn's 8x8 handwritten digits: 1,000 for training, stratified, and 797 for testing.

    Attributes:
        batch: training batch size; an incomplete last batch is dropped.
    """

    batch: int = 32

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        images = (images / 16 - 0.5) / 0.5
        # The split is part of the task: one for all seeds.
        split = train_test_split(images, labels, train_size=1000, stratify=labels, random_state=0)
        x_train, x_test = (torch.tensor(part, dtype=torch.float32, device=device) for part in split[:2])
        y_train, y_test = (torch.tensor(part, dtype=torch.int64, device=device) for part in split[2:])
        return in_memory(x_train, y_train, x_test, y_test, batch=self.batch, seed=seed)


def in_memory(
    x_train: Tensor, y_train: Tensor, x_test: Tensor, y_test: Tensor, *, batch: int, seed: int, at_once: int = 1000
) -> Loaded:
    """Batches of tensors that fit on the device; inputs float32, labels int64, evaluation in batches of `at_once`.

    Images (four dimensions) are kept channels-last.

    Raises:
        ValueError: a batch size below 1 or above the number of training examples.
    """
    x_train, x_test = _channels_last(x_train), _channels_last(x_test)
    steps = len(x_train) // batch if batch > 0 else 0
    if not steps:
        raise ValueError(f"batch={batch}: expected 1 to {len(x_train)}, the number of training examples")

    def train(epoch: int) -> Iterator[Batch]:
        order = torch.randperm(len(x_train), generator=_epoch_generator(seed, epoch)).to(x_train.device)
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            yield x_train[chosen], y_train[chosen]

    def whole(x: Tensor, y: Tensor) -> Iterator[Batch]:
        return zip(x.split(at_once), y.split(at_once), strict=True)

    # A short last batch would weigh as much as the others in batch-norm statistics.
    full = len(x_train) - len(x_train) % at_once or len(x_train)
    return Loaded(
        classes=int(y_train.max()) + 1,
        steps=steps,
        train=train,
        test=lambda: whole(x_test, y_test),
        calibrate=lambda: whole(x_train[:full], y_train[:full]),
    )


def _open_image(path: str) -> Any:
    """The image at `path`; an error that says which file it is."""
    from torchvision.datasets.folder import default_loader

    try:
        return default_loader(path)
    except OSError as error:
        raise ValueError(f"cannot read image {path}: {error}; replace it or remove it") from error


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Images in torchvision's ImageFolder layout: ROOT/train/CLASS/*.jpeg and ROOT/val/CLASS/*.jpeg.

    Training: random resized crop and flip; evaluation: resize the shorter side and crop the centre.

    Attributes:
        root: the folder that holds train and val.
        batch: training batch size; an incomplete last batch is dropped.
        size: side of the training and evaluation crop, in pixels.
        resize: shorter side before the evaluation crop, in pixels.
        workers: decoding processes; 0 decodes in the training process.
        calibration: training images used for batch-norm statistics, two at least.
    """

    root: Path = Path("data/imagenet")
    batch: int = 512
    size: int = 224
    resize: int = 256
    workers: int = 8
    calibration: int = 10_000

    def __post_init__(self) -> None:
        least = {"batch": 1, "size": 1, "resize": self.size, "workers": 0, "calibration": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least {bound}")

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        from torchvision import datasets
        from torchvision.transforms import v2

        for part in ("train", "val"):
            if not any((self.root / part).glob("*/*")):
                raise DataMissing(
                    f"No images in {self.root / part}: download ImageNet (ILSVRC 2012, image-net.org) or any other set "
                    f"of images, and put it there as {self.root}/train/CLASS/*.jpeg and {self.root}/val/CLASS/*.jpeg, "
                    "or name another folder with --data.root."
                )
        to_tensor = [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        ]
        augment = v2.Compose([v2.RandomResizedCrop(self.size), v2.RandomHorizontalFlip(), *to_tensor])
        centre = v2.Compose([v2.Resize(self.resize), v2.CenterCrop(self.size), *to_tensor])
        train_set = datasets.ImageFolder(str(self.root / "train"), transform=augment, loader=_open_image)
        plain_set = datasets.ImageFolder(str(self.root / "train"), transform=centre, loader=_open_image)
        test_set = datasets.ImageFolder(str(self.root / "val"), transform=centre, loader=_open_image)
        if train_set.classes != test_set.classes:
            raise ValueError(
                f"{self.root}: train has {len(train_set.classes)} classes and val {len(test_set.classes)}, and their "
                f"names differ: {sorted(set(train_set.classes) ^ set(test_set.classes))[:5]}"
            )
        if len(train_set) < self.batch:
            raise ValueError(f"batch={self.batch}: {self.root / 'train'} has only {len(train_set)} images")

        def batches(dataset: Any, generator: torch.Generator | None, whole: bool = True) -> Iterator[Batch]:
            loader = torch.utils.data.DataLoader(
                dataset,
                batch_size=self.batch,
                shuffle=generator is not None,
                drop_last=not whole,
                num_workers=self.workers,
                pin_memory=device.type == "cuda",
                generator=generator,
            )
            for inputs, labels in loader:
                yield _channels_last(inputs.to(device, non_blocking=True)), labels.to(device, non_blocking=True)

        order = torch.randperm(len(plain_set), generator=_epoch_generator(seed, 0))
        few = torch.utils.data.Subset(plain_set, order[: self.calibration].tolist())
        return Loaded(
            classes=len(train_set.classes),
            steps=len(train_set) // self.batch,
            train=lambda epoch: batches(train_set, _epoch_generator(seed, epoch), whole=False),
            test=lambda: batches(test_set, None),
            calibrate=lambda: batches(few, None, whole=len(few) < self.batch),
        )
