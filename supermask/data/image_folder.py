"""Images in folders: decoded, cropped and resized in worker processes, copied to the device as bytes."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, Pipe
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from supermask.data.base import About, Batch, DataDamaged, Loaded, Part, generator_for, order_of
from supermask.data.class_folders import ClassFolders, check_same, find_images
from supermask.data.held_out import Evaluated, check_held_out, split
from supermask.data.pixels import normalised
from supermask.data.rgb import read_rgb
from supermask.later import LATER, Grown

Item = TypeVar("Item")
Key = tuple[int | None, int]
"""The epoch that augments an image, or none, and the image's number."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ImageFolder(Grown):
    """Images in torchvision's ImageFolder layout: ROOT/train/CLASS/*.jpeg and ROOT/val/CLASS/*.jpeg.

    Training: random resized crop and flip; evaluation: resize the shorter side and crop the centre.

    Attributes:
        root: the folder that holds train and val.
        batch: training batch size over all processes; an incomplete last batch is dropped.
        size: side of the training and evaluation crop, in pixels.
        resize: shorter side before the evaluation crop, in pixels.
        workers: decoding processes of each training process; 0 decodes in the training process itself.
        calibration: training images used for batch-norm statistics, two at least.
        hold_out: fraction of the training images that are not trained on, the same ones for every seed. IteRand's paper
            holds out 0.01: its numbers are of 99 % of the training data.
        evaluate: what accuracies are of: `test`, the images in val, or the `held_out` ones, which are used for nothing
            else.
    """

    root: Path = Path("data/imagenet")
    batch: int = 512
    size: int = 224
    resize: int = 256
    workers: int = field(default=8, repr=False)
    calibration: int = 10_000
    hold_out: float = field(default=0.0, metadata=LATER)
    evaluate: Evaluated = field(default="test", metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "root", Path(self.root))  # a string will do
        least = {"batch": 1, "size": 1, "resize": self.size, "workers": 0, "calibration": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least {bound}")
        check_held_out(self.hold_out, 1, self.evaluate)

    def about(self) -> About:
        """Size of the folder; where there is none, that of ImageNet.

        Raises:
            DataMissing, ValueError: as `open`, of a folder that is there.
        """
        shape = (3, self.size, self.size)
        if not os.path.lexists(self.root.expanduser()):
            note = f"no images in {self.root / 'train'}: assumed to be ImageNet (ILSVRC 2012)"
            return About(classes=1000, train=1_281_167 - self._held_out(1_281_167), shape=shape, note=note)
        train, _ = self._find()
        count = len(train.paths)
        return About(classes=len(train.classes), train=count - self._held_out(count), shape=shape)

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        from torchvision.transforms import v2

        (found, labels, classes), (test_paths, test_labels, _) = self._find()
        kept, held = (part.tolist() for part in split(len(found), self._held_out(len(found))))
        train_paths, train_labels = [found[index] for index in kept], [labels[index] for index in kept]
        held_paths, held_labels = [found[index] for index in held], [labels[index] for index in held]
        if len(train_paths) < self.batch:
            left = " to train on" if held else ""
            raise ValueError(f"batch={self.batch}: {self.root / 'train'} has only {len(train_paths)} images{left}")
        augment = v2.Compose([v2.RandomResizedCrop(self.size), v2.RandomHorizontalFlip()])
        centre = v2.Compose([v2.Resize(self.resize), v2.CenterCrop(self.size)])
        decoded = partial(DecodedImages, seed=seed, augment=augment, plain=centre)
        train_images, test_images = decoded(train_paths, train_labels), decoded(test_paths, test_labels)
        held_images = decoded(held_paths, held_labels)
        steps = len(train_paths) // self.batch
        few = order_of(len(train_paths), seed, 0)[: self.calibration]
        # A short last batch would weigh as much as the others in batch-norm statistics.
        few = few[: len(few) - len(few) % self.batch or len(few)]
        normalise = normalised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), device)
        training = Decoder(train_images, workers=self.workers, device=device, keep=True)

        def batches(order: Tensor, part: Part) -> Iterator[list[Key]]:
            """Evaluation batches: of every image in `order`, none augmented."""
            shares = (part.share(whole).tolist() for whole in order.split(self.batch))
            return ([(None, index) for index in share] for share in shares if share)

        def train_batches(part: Part) -> Iterator[list[Key]]:
            order = order_of(len(train_paths), seed, part.epoch)
            for step in range(part.start, steps):
                share = part.share(order[step * self.batch : (step + 1) * self.batch])
                yield [(part.epoch, index) for index in share.tolist()]

        def train(part: Part) -> Iterator[Batch]:
            part.check(steps=steps, batch=self.batch)
            return on_device(training.decode(train_batches(part)), device, normalise)

        def evaluation(images: DecodedImages, order: Tensor, part: Part) -> Iterator[Batch]:
            decoder = Decoder(images, workers=self.workers, device=device, keep=False)
            return on_device(decoder.decode(batches(order, part)), device, normalise)

        def calibrate(part: Part) -> Iterator[Batch]:
            part.check(steps=steps, batch=min(self.batch, len(few)))
            return evaluation(train_images, few, part)

        return Loaded(
            classes=len(classes),
            steps=steps,
            train=train,
            test=lambda part: evaluation(test_images, torch.arange(len(test_paths)), part),
            calibrate=calibrate,
            held_out=(lambda part: evaluation(held_images, torch.arange(len(held)), part)) if self.hold_out else None,
        ).evaluated_on(self.evaluate)

    def _held_out(self, count: int) -> int:
        return round(self.hold_out * count)

    def _find(self) -> tuple[ClassFolders, ClassFolders]:
        """The images of train and of val.

        Raises:
            DataMissing: there are none, or none of a class.
            ValueError: they have other classes.
        """
        train, val = (find_images(self.root / part) for part in ("train", "val"))
        check_same(self.root, train.classes, val.classes)
        return train, val


@dataclass(frozen=True)
class Damaged:
    """In the place of an image, or of a batch, that cannot be had; what is wrong."""

    message: str


class DecodedImages(Dataset[tuple[Tensor, int] | Damaged]):
    """Images by key, as uint8 [height, width, 3], and their labels.

    How an image is augmented is a function of (seed, epoch, its number); the global random state stays as it is.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Sequence[int],
        *,
        seed: int,
        augment: Callable[[Any], Any],
        plain: Callable[[Any], Any],
    ) -> None:
        # Arrays: counting references to a million strings would copy them into every worker.
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.labels = np.array(labels)
        self.seed, self.augment, self.plain = seed, augment, plain

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: Key) -> tuple[Tensor, int] | Damaged:
        epoch, index = key
        path = os.fsdecode(self.paths[index])
        try:
            image = read_rgb(path)
        except Exception as error:  # decoders raise what they happen to stumble over in a damaged file
            return Damaged(f"cannot read image {path}: {error or type(error).__name__}; replace it or remove it")
        if epoch is None:
            image = self.plain(image)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.set_state(generator_for(self.seed, epoch, index).get_state())
                image = self.augment(image)
        return torch.from_numpy(np.array(image)), int(self.labels[index])


class Decoder:
    """Decodes lists of keys into batches on the host, in worker processes if there are any.

    Args:
        keep: the workers stay for the next pass.
    """

    def __init__(self, images: DecodedImages, *, workers: int, device: torch.device, keep: bool) -> None:
        self.order = Replaceable()
        self.loader: DataLoader[Any] = DataLoader(
            images,
            batch_sampler=self.order,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=device.type == "cuda",
            persistent_workers=keep and workers > 0,
            prefetch_factor=2 if workers else None,
            generator=torch.Generator(),  # else it draws from the global one
            worker_init_fn=partial(heed_no_signals, self._exits()) if workers else None,
        )

    def _exits(self) -> Connection:
        """What there is something to read from once the trainer exits, before it ends its children and waits."""
        exits, tell = Pipe(duplex=False)
        Finalize(self, tell.send_bytes, (b"exits",), exitpriority=0)
        return exits

    def decode(self, batches: Iterator[list[Key]]) -> Iterator[Batch]:
        """Images uint8 [batch, height, width, 3] and labels; one pass at a time.

        Raises:
            DataDamaged: an image cannot be read; the message names the file.
            RuntimeError: another pass was begun before this one's end.
        """
        self.order.batches = batches
        with signals_later():
            decoded = iter(self.loader)
        for batch in decoded:
            if isinstance(batch, Damaged):
                raise DataDamaged(batch.message)
            yield batch
            if self.order.batches is not batches:
                raise RuntimeError("another pass over the same images was begun before this one's end")


TO_GROUPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_later() -> Iterator[None]:
    """A worker that is begun within is not met by a signal before `heed_no_signals`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TO_GROUPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def heed_no_signals(exits: Connection, _worker: int) -> None:
    """A signal to a process group is the trainer's to answer: it saves, and its workers end with it. SIGTERM after a
    word from `exits` is of the trainer itself."""

    def terminated(*_: object) -> None:
        if exits.poll():
            os._exit(0)  # with another status, the trainer would tell of a killed worker

    signal.signal(signal.SIGTERM, terminated)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TO_GROUPS)


class Replaceable:
    """The batches that a DataLoader goes over in its next pass."""

    def __init__(self) -> None:
        self.batches: Iterable[list[Key]] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)


def collate(items: list[tuple[Tensor, int] | Damaged]) -> Any:
    """A batch of images and labels, or the first damaged one."""
    return next((item for item in items if isinstance(item, Damaged)), None) or default_collate(items)


def on_device(batches: Iterator[Batch], device: torch.device, prepare: Callable[[Tensor], Tensor]) -> Iterator[Batch]:
    """Batches of bytes [batch, height, width, 3], on `device` and through `prepare` as [batch, 3, height, width].

    To a GPU the next batch is copied, on a stream of its own, while the one before it is computed on.
    """

    def put(batch: Batch) -> Batch:
        images, labels = (part.to(device, non_blocking=True) for part in batch)
        return prepare(images.permute(0, 3, 1, 2)), labels

    if device.type != "cuda":
        yield from map(put, batches)
        return
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))

    def copy(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(side):
            return put(batch), side.record_event()

    for batch, copied in one_ahead(map(copy, batches)):
        yield take(batch, copied)


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items, each handed out once the next one is made."""
    made: list[Item] = []
    for item in items:
        made.append(item)
        if len(made) > 1:
            yield made.pop(0)
    yield from made


def take(batch: Batch, copied: torch.cuda.Event) -> Batch:
    """The batch, once it is copied, for the current stream of its device."""
    current = torch.cuda.current_stream(batch[0].device)
    current.wait_event(copied)
    for part in batch:
        # Its memory may be given to the next copy only when this stream is done with it.
        part.record_stream(current)
    return batch
