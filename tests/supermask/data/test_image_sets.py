"""Small image sets: files in their published formats, their pixels exactly, and their augmentation."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat
from torch import Tensor

from supermask.data.base import DataMissing, Part, generator_for, order_of
from supermask.data.image_sets import CIFAR10, CIFAR100, MNIST, SVHN
from supermask.data.pixels import RandomCrop, normalised
from tests.supermask.data.test_image_files import idx

CPU = torch.device("cpu")
TRAIN, TEST = 60, 15
CONSTANTS = {
    CIFAR10: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    CIFAR100: ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    SVHN: ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    MNIST: ((0.1307,), (0.3081,)),
}


def write_cifar10(root: Path, x: np.ndarray, y: np.ndarray) -> None:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    records = b"".join(bytes([label]) + image.tobytes() for image, label in zip(x, y, strict=True))
    fifth = TRAIN // 5 * 3073
    for number in range(5):
        (folder / f"data_batch_{number + 1}.bin").write_bytes(records[number * fifth : (number + 1) * fifth])
    (folder / "test_batch.bin").write_bytes(records[5 * fifth :])


def write_cifar100(root: Path, x: np.ndarray, y: np.ndarray) -> None:
    (root / "cifar-100-binary").mkdir()
    records = [bytes([19 - label % 20, label]) + image.tobytes() for image, label in zip(x, y, strict=True)]
    (root / "cifar-100-binary" / "train.bin").write_bytes(b"".join(records[:TRAIN]))
    (root / "cifar-100-binary" / "test.bin").write_bytes(b"".join(records[TRAIN:]))


def write_svhn(root: Path, x: np.ndarray, y: np.ndarray) -> None:
    ten = np.where(y == 0, 10, y).astype(np.uint8)[:, None]
    matlab = x.transpose(2, 3, 1, 0)
    savemat(root / "train_32x32.mat", {"X": matlab[..., :TRAIN], "y": ten[:TRAIN]}, do_compression=True)
    savemat(root / "test_32x32.mat", {"X": matlab[..., TRAIN:], "y": ten[TRAIN:]}, do_compression=True)


def write_mnist(root: Path, x: np.ndarray, y: np.ndarray) -> None:
    for name, part in (("train", slice(TRAIN)), ("t10k", slice(TRAIN, None))):
        (root / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x[part, 0])))
        (root / f"{name}-labels-idx1-ubyte").write_bytes(idx(y[part]))


Write = Callable[[Path, np.ndarray, np.ndarray], None]
SETS: list[tuple[type[Any], Write]] = [
    (CIFAR10, write_cifar10),
    (CIFAR100, write_cifar100),
    (SVHN, write_svhn),
    (MNIST, write_mnist),
]
COLOURED = SETS[:3]


def content(kind: type[Any]) -> tuple[Tensor, Tensor]:
    """Random pixels uint8 and labels of every class, training and test images one after the other."""
    about = kind().about()
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (TRAIN + TEST, *about.shape), generator=generator, dtype=torch.uint8)
    return x, torch.arange(TRAIN + TEST) * 7 % about.classes


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Any]:
    """A set of random images, written to files and opened."""

    def make(kind: type[Any], write: Write, *, seed: int = 0, **options: Any) -> Any:
        root = tmp_path / kind.__name__
        if not root.exists():
            root.mkdir()
            x, y = content(kind)
            write(root, x.numpy(), y.numpy())
        return kind(root=root, **{"batch": 16} | options).open(seed=seed, device=CPU)

    return make


def reference(kind: type[Any], pixels: Tensor) -> Tensor:
    """Normalised one channel at a time."""
    mean, std = (255 * torch.tensor(constants) for constants in CONSTANTS[kind])
    channels = [(pixels[:, c].float() - mean[c]) / std[c] for c in range(pixels.shape[1])]
    return torch.stack(channels, dim=1)


@pytest.mark.parametrize(("kind", "write"), SETS)
def test_pixels_and_labels_are_those_of_the_files(kind: type[Any], write: Write, opened: Callable[..., Any]) -> None:
    loaded = opened(kind, write)
    x, y = content(kind)
    assert (loaded.classes, loaded.steps) == (kind().about().classes, 3)
    for batches, part in ((loaded.calibrate, slice(TRAIN)), (loaded.test, slice(TRAIN, None))):
        ((inputs, labels),) = batches(Part())
        assert torch.equal(inputs, reference(kind, x[part]))
        assert torch.equal(labels, y[part])
        assert inputs.is_contiguous(memory_format=torch.channels_last)
        assert (inputs.dtype, labels.dtype) == (torch.float32, torch.int64)
        mean, std = (torch.tensor(constants).view(1, -1, 1, 1) for constants in CONSTANTS[kind])
        torch.testing.assert_close(inputs, (x[part] / 255 - mean) / std, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("kind", "write"), COLOURED)
@pytest.mark.parametrize("augment", ["crop_flip", "crop"])
def test_training_batches_equal_a_loop_over_images(
    kind: type[Any], write: Write, augment: str, opened: Callable[..., Any]
) -> None:
    loaded = opened(kind, write, augment=augment, seed=9)
    x, y = content(kind)
    order = order_of(TRAIN, 9, 4)
    flips = 0
    for step, (inputs, labels) in enumerate(loaded.train(Part(epoch=4))):
        chosen = order[step * 16 : (step + 1) * 16]
        drawn = RandomCrop(flip=augment == "crop_flip").draw(16, generator_for(9, 4, step))
        cropped = torch.stack([crop(x[i], *row) for i, row in zip(chosen.tolist(), drawn.tolist(), strict=True)])
        assert torch.equal(inputs, reference(kind, cropped))
        assert torch.equal(labels, y[chosen])
        assert inputs.is_contiguous(memory_format=torch.channels_last)
        flips += int(drawn[:, 2].sum())
    assert (flips > 0) == (augment == "crop_flip")


def crop(image: Tensor, top: int, left: int, mirrored: int, pad: int = 4) -> Tensor:
    """One image, pixel by pixel."""
    channels, height, width = image.shape
    source, out = image.numpy(), np.zeros((channels, height, width), np.uint8)
    for i in range(height):
        for j in range(width):
            row, column = top + i - pad, left + (width - 1 - j if mirrored else j) - pad
            if 0 <= row < height and 0 <= column < width:
                out[:, i, j] = source[:, row, column]
    return torch.from_numpy(out)


@given(
    shape=st.tuples(*(st.integers(1, top) for top in (4, 3, 9, 7))),
    pad=st.integers(0, 5),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
    seed=st.integers(0, 99),
)
def test_crops_of_any_shape_equal_a_loop_over_pixels(
    shape: tuple[int, ...], pad: int, layout: torch.memory_format, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    change = RandomCrop(pad=pad)
    drawn = change.draw(len(images), generator)
    expected = torch.stack(
        [crop(image, *row) for image, row in zip(images, [(*d, pad) for d in drawn.tolist()], strict=True)]
    )
    before = images.clone()
    assert torch.equal(change(images.to(dtype).contiguous(memory_format=layout), drawn), expected.to(dtype))
    assert torch.equal(images, before)


def test_crops_take_every_place_and_mirror_every_other_image() -> None:
    drawn = RandomCrop().draw(20_000, torch.Generator().manual_seed(0))
    for column in (0, 1):
        counts = drawn[:, column].bincount()
        assert len(counts) == 9
        assert (counts - 20_000 / 9).abs().max() < 6 * (20_000 / 9) ** 0.5
    assert abs(float(drawn[:, 2].float().mean()) - 0.5) < 0.02
    places = drawn[:, 0] * 18 + drawn[:, 1] * 2 + drawn[:, 2]
    assert len(places.unique()) == 9 * 9 * 2, "the three are drawn apart"
    assert not RandomCrop(flip=False).draw(100, torch.Generator())[:, 2].any()


def test_normalisation_leaves_its_input_and_keeps_shapes() -> None:
    images = torch.randint(256, (2, 3, 5, 4), dtype=torch.uint8)
    before = images.clone()
    out = normalised((0.5, 0.25, 0.0), (0.5, 1.0, 2.0), CPU)(images)
    assert torch.equal(images, before)
    expected = (images.double() / 255 - torch.tensor([0.5, 0.25, 0.0]).view(3, 1, 1)) / torch.tensor(
        [0.5, 1.0, 2.0]
    ).view(3, 1, 1)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "write"), SETS)
def test_start_ranks_and_epochs(kind: type[Any], write: Write, opened: Callable[..., Any]) -> None:
    loaded = opened(kind, write, seed=2)
    whole = list(loaded.train(Part(epoch=1)))
    torch.manual_seed(5)
    rest = list(loaded.train(Part(epoch=1, start=1)))
    shares = [list(loaded.train(Part(epoch=1, start=1, rank=rank, ranks=3))) for rank in range(3)]
    for step, (x, y) in enumerate(rest):
        assert torch.equal(x, whole[step + 1][0])
        assert torch.equal(x, torch.cat([share[step][0] for share in shares]))
        assert torch.equal(y, torch.cat([share[step][1] for share in shares]))
    assert len(rest) == 2
    assert not torch.equal(whole[0][0], next(loaded.train(Part(epoch=2)))[0])


@pytest.mark.parametrize(("kind", "write"), COLOURED)
def test_augmentation_can_be_left_off(kind: type[Any], write: Write, opened: Callable[..., Any]) -> None:
    x, _ = next(opened(kind, write, augment="none").train(Part()))
    pixels, _ = content(kind)
    assert torch.equal(x, reference(kind, pixels[order_of(TRAIN, 0, 0)[:16]]))
    with pytest.raises(ValueError, match="augment='flip': expected one of 'crop_flip', 'crop', 'none'"):
        kind(augment="flip")


def test_published_sizes() -> None:
    sizes = [(about.classes, about.train, about.shape) for about in (kind().about() for kind, _ in SETS)]
    coloured = (3, 32, 32)
    assert sizes == [(10, 50_000, coloured), (100, 50_000, coloured), (10, 73_257, coloured), (10, 60_000, (1, 28, 28))]


@pytest.mark.parametrize(
    ("kind", "name", "archive", "md5"),
    [
        (CIFAR10, "CIFAR-10", "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
        (CIFAR100, "CIFAR-100", "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
        (SVHN, "SVHN", "train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        (MNIST, "MNIST", "train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    ],
)
def test_a_missing_set_says_what_to_do(kind: type[Any], name: str, archive: str, md5: str, tmp_path: Path) -> None:
    with pytest.raises(DataMissing) as missing:
        kind(root=tmp_path / "none").open(seed=0, device=CPU)
    (sentence,) = str(missing.value).splitlines()
    for word in (f"No {name} in {tmp_path / 'none'}", archive, md5, "--data.download", "--data.root"):
        assert word in sentence
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("kind", "write"), SETS)
def test_each_file_is_needed(kind: type[Any], write: Write, opened: Callable[..., Any], tmp_path: Path) -> None:
    opened(kind, write)
    files = [path for path in (tmp_path / kind.__name__).rglob("*") if path.is_file()]
    assert len(files) == {CIFAR10: 6, CIFAR100: 2, SVHN: 2, MNIST: 4}[kind]
    for file in files:
        saved = file.read_bytes()
        file.unlink()
        with pytest.raises(DataMissing, match=re.escape(file.name)):
            opened(kind, write)
        file.write_bytes(saved)


@pytest.mark.parametrize(("kind", "write"), SETS)
@pytest.mark.parametrize("left", [0, 2000, -1])
def test_truncated_files_are_named(
    kind: type[Any], write: Write, left: int, opened: Callable[..., Any], tmp_path: Path
) -> None:
    opened(kind, write)
    for file in [path for path in (tmp_path / kind.__name__).rglob("*") if path.is_file()]:
        saved = file.read_bytes()
        if left >= len(saved):
            continue
        file.write_bytes(saved[:left])
        with pytest.raises(ValueError, match=re.escape(str(file))) as error:
            opened(kind, write)
        assert re.search(rf"\b{len(saved[:left])}\b|nothing", str(error.value)), error.value
        file.write_bytes(saved)
