"""Data sets, as configurations that open into batches on the training device.

Every random draw of training data is a function of the seed, the epoch and the place in it alone, so that a run resumed
within an epoch, or shared by several processes, sees the same pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from supermask.checks import SupermaskError
from supermask.data.held_out import Evaluated, split

Batch = tuple[Tensor, Tensor]
"""Inputs and labels, on the training device."""

Items = TypeVar("Items", Tensor, list[int])


class DataMissing(SupermaskError):
    """A data set is not where the recipe looks for it; the message says what to download and where to put it."""


class DataDamaged(SupermaskError, ValueError):
    """A file of a data set that cannot be read; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which batches a process takes, and which share of each.

    Attributes:
        epoch: from 0; orders and augments the training batches.
        start: first training batch, to go on in the middle of an epoch.
        rank, ranks: this process takes the rank-th of `ranks` contiguous pieces of every batch.

    Raises:
        ValueError: a negative number, or a rank that is not below `ranks`.
    """

    epoch: int = 0
    start: int = 0
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        for name in ("epoch", "start"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number from 0 up")
        if not 0 <= self.rank < self.ranks:
            raise ValueError(f"rank={self.rank} of ranks={self.ranks}: expected 0 <= rank < ranks")

    def share(self, batch: Items) -> Items:
        """This process' piece of a whole batch, as torch.tensor_split cuts it: the first ranks take one more."""
        each, more = divmod(len(batch), self.ranks)
        first = self.rank * each + min(self.rank, more)
        return batch[first : first + each + (self.rank < more)]

    def check(self, *, steps: int, batch: int) -> None:
        """Raise ValueError where an epoch of `steps` batches has no such part, or a rank would go without an image."""
        if self.start > steps:
            raise ValueError(f"start={self.start}: an epoch has {steps} batches")
        if self.ranks > batch:
            raise ValueError(f"batch={batch}: {self.ranks} processes share it, and each needs one image at least")


@dataclass(frozen=True, kw_only=True)
class About:
    """What is known of a data set before it is opened.

    Attributes:
        classes: number of labels.
        train: number of training images.
        shape: of one input, without the batch.
        note: where these figures are assumed, what they are assumed from.
    """

    classes: int
    train: int
    shape: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An open data set.

    Attributes:
        classes: number of labels.
        steps: training batches an epoch, the same for every number of processes.
        train: batches of one epoch, from Part.start on.
        test: the test batches; of the part, only rank and ranks count, and a rank's empty piece is left out.
        calibrate: training batches without augmentation or shuffling, for batch-norm statistics; parts as for `test`.
        held_out: batches of the training images that are not trained on, in order and not augmented; parts as for
            `test`. None where there are none.
    """

    classes: int
    steps: int
    train: Callable[[Part], Iterator[Batch]]
    test: Callable[[Part], Iterator[Batch]]
    calibrate: Callable[[Part], Iterator[Batch]]
    held_out: Callable[[Part], Iterator[Batch]] | None = None

    def evaluated_on(self, evaluate: Evaluated) -> "Loaded":
        """The same, with the held-out images in the place of the test set where `evaluate` says so."""
        return replace(self, test=self.held_out) if evaluate == "held_out" and self.held_out else self


class Data(Protocol):
    """A data set as a recipe takes it: a frozen dataclass whose fields, `batch` among them, become flags, with a method
    `open`.

    Fields declared with repr=False are how the set is had, not what it is (decoding processes, say): a run goes on with
    other values of them.
    """

    @property
    def batch(self) -> int:
        """Training batch size over all processes."""
        ...

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        """Load the set; `seed` orders and augments the training batches.

        Raises:
            DataMissing: the files are not there.
            ValueError: the files are damaged, or the set is too small for its batches.
        """
        ...


@runtime_checkable
class Described(Protocol):
    """A data set that knows its size without its files."""

    def about(self) -> About:
        """Size and shape."""
        ...


class Augment(Protocol):
    """Random changes to images, in two steps: a process draws for the whole batch and changes its own share."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Random numbers for `count` images, a row each, on the CPU."""
        ...

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """The images, each changed as its row of `drawn` says; both on the training device."""
        ...


def generator_for(seed: int, epoch: int, step: int) -> torch.Generator:
    """Random numbers of one training batch (or image), the same whatever ran before it."""
    # torch seeds its CPU generator from the low 32 bits alone.
    key = blake2b(f"{seed} {epoch} {step}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little"))


def order_of(count: int, seed: int, epoch: int) -> Tensor:
    """The order, int64 [count], in which an epoch goes over its training images."""
    return torch.randperm(count, generator=torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63)))


def channels_last(inputs: Tensor) -> Tensor:
    """Images (four dimensions) channels-last, anything else as it is."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


def steps_of(count: int, batch: int) -> int:
    """Full batches in `count` examples.

    Raises:
        ValueError: there is none, or `batch` is not positive.
    """
    if not 0 < batch <= count:
        raise ValueError(f"batch={batch}: expected 1 to {count}, the number of training examples")
    return count // batch


def in_order(
    x: Tensor, y: Tensor, part: Part, at_once: int, prepare: Callable[[Tensor], Tensor] = lambda inputs: inputs
) -> Iterator[Batch]:
    """A process' pieces of all examples, in batches of `at_once`; an empty piece is left out."""
    for inputs, labels in zip(x.split(at_once), y.split(at_once), strict=True):
        if len(own := part.share(labels)):
            yield prepare(part.share(inputs)), own


def in_memory(
    x_train: Tensor,
    y_train: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    *,
    batch: int,
    seed: int,
    at_once: int = 1000,
    classes: int | None = None,
    augment: Augment | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    hold_out: int = 0,
) -> Loaded:
    """Batches of tensors that fit on the device; labels int64, evaluation in batches of `at_once`.

    Images (four dimensions) are kept channels-last.

    Args:
        x_train, x_test: inputs, float32 or what `prepare` takes.
        batch: training batch size over all processes; an incomplete last batch is dropped.
        seed: orders and augments the training batches.
        classes: number of labels; by default one more than the largest training label.
        augment: changes the training batches as they are stored, before `prepare`.
        prepare: makes what the network takes of a batch as it is stored.
        hold_out: so many training examples are not trained on, the same ones for every seed: `held_out` of the result.

    Raises:
        ValueError: a batch size below 1 or above the number of training examples, or all of these held out.
    """
    labels = y_train
    held: tuple[Tensor, Tensor] | None = None
    if hold_out:
        kept, out = (part.to(x_train.device) for part in split(len(x_train), hold_out))
        held = channels_last(x_train[out]), y_train[out]
        x_train, y_train = x_train[kept], y_train[kept]
    x_train, x_test = channels_last(x_train), channels_last(x_test)
    ready = prepare or (lambda inputs: inputs)
    steps = steps_of(len(x_train), batch)

    def train(part: Part) -> Iterator[Batch]:
        part.check(steps=steps, batch=batch)
        return train_batches(part)

    def train_batches(part: Part) -> Iterator[Batch]:
        order = order_of(len(x_train), seed, part.epoch).to(x_train.device)
        for step in range(part.start, steps):
            chosen = part.share(order[step * batch : (step + 1) * batch])
            inputs = x_train[chosen]
            if augment:
                drawn = augment.draw(batch, generator_for(seed, part.epoch, step))
                inputs = augment(inputs, part.share(drawn).to(inputs.device, non_blocking=True))
            yield ready(inputs), y_train[chosen]

    def calibrate(part: Part) -> Iterator[Batch]:
        part.check(steps=steps, batch=min(at_once, full))  # batch norms need every process in every batch
        return in_order(x_train[:full], y_train[:full], part, at_once, ready)

    # A short last batch would weigh as much as the others in batch-norm statistics.
    full = len(x_train) - len(x_train) % at_once or len(x_train)
    return Loaded(
        classes=int(labels.max()) + 1 if classes is None else classes,
        steps=steps,
        train=train,
        test=lambda part: in_order(x_test, y_test, part, at_once, ready),
        calibrate=calibrate,
        held_out=None if held is None else lambda part: in_order(*held, part, at_once, ready),
    )
