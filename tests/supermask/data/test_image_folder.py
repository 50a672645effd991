"""Folders of images: the same pixels whoever decodes them, and errors that name the file."""

import multiprocessing
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from supermask.data import image_folder
from supermask.data.base import About, Batch, DataMissing, Described, Loaded, Part, order_of
from supermask.data.image_folder import ImageFolder, one_ahead

CPU = torch.device("cpu")
TRAIN, TEST = 13, 7


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 32 x 32 pixels of noise, kept losslessly; one is grey and one has a palette."""
    root = tmp_path_factory.mktemp("folder")
    generator = np.random.default_rng(0)
    for part, count in (("train", TRAIN), ("val", TEST)):
        for number in range(count):
            path = root / part / "ab"[number % 2] / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            image.convert({0: "L", 1: "P"}.get(number, "RGB")).save(path)
    return root


@pytest.fixture
def opened(root: Path) -> Callable[..., Loaded]:
    def make(*, seed: int = 0, **options: Any) -> Loaded:
        small: dict[str, Any] = {"root": root, "batch": 4, "size": 32, "resize": 32, "workers": 0}
        return ImageFolder(**small | options).open(seed=seed, device=CPU)

    return make


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


def images(root: Path, part: str) -> tuple[Tensor, Tensor]:
    """All images of a part, normalised one channel at a time, and their labels."""
    paths = sorted((root / part).glob("*/*"))
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in paths]).float()
    constants = zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    scaled = [(255 * torch.tensor(mean), 255 * torch.tensor(std)) for mean, std in constants]
    channels = [(pixels[..., c] - mean) / std for c, (mean, std) in enumerate(scaled)]
    return torch.stack(channels, dim=1), torch.tensor(["ab".index(path.parent.name) for path in paths])


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_shows_every_image_as_it_is(root: Path, workers: int, opened: Callable[..., Loaded]) -> None:
    loaded = opened(workers=workers, seed=3)
    assert (loaded.classes, loaded.steps) == (2, 3)
    x, y = images(root, "val")
    test = list(loaded.test(Part(epoch=2, start=1)))
    assert equal(test, list(zip(x.split(4), y.split(4), strict=True)))
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch, _ in test)
    x, y = images(root, "train")
    few = order_of(TRAIN, 3, 0)[:12]
    assert equal(list(loaded.calibrate(Part())), list(zip(x[few].split(4), y[few].split(4), strict=True)))


def test_few_images_for_calibration(root: Path, opened: Callable[..., Loaded]) -> None:
    x, _ = images(root, "train")
    few = order_of(TRAIN, 0, 0)
    ((inputs, _),) = opened(calibration=3).calibrate(Part())
    assert torch.equal(inputs, x[few[:3]])
    assert [len(labels) for _, labels in opened(calibration=10).calibrate(Part())] == [4, 4]


def test_training_crops_the_images_in_the_order_of_the_epoch(root: Path, opened: Callable[..., Loaded]) -> None:
    _, y = images(root, "train")
    batches = list(opened(seed=1).train(Part(epoch=5)))
    assert torch.equal(torch.cat([labels for _, labels in batches]), y[order_of(TRAIN, 1, 5)[:12]])
    for inputs, _ in batches:
        assert inputs.shape == (4, 3, 32, 32)
        assert inputs.dtype == torch.float32
        assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_pixels_depend_on_seed_epoch_and_image_alone(opened: Callable[..., Loaded]) -> None:
    loaded = opened()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = list(loaded.train(Part(epoch=1)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    with_workers = opened(workers=2)
    torch_state = torch.get_rng_state()
    assert equal(list(with_workers.train(Part(epoch=1))), whole)
    assert equal(list(with_workers.train(Part(epoch=1, start=2))), whole[2:])
    assert torch.equal(torch.get_rng_state(), torch_state)
    one, *others = (
        dict(in_order(opened(batch=13, seed=seed), seed, epoch)) for seed, epoch in ((0, 1), (0, 2), (1, 1))
    )
    for other in others:
        assert all(not torch.equal(one[index], other[index]) for index in range(TRAIN)), "each epoch has its own crops"
    assert equal(list(opened(batch=6).train(Part(epoch=1))), regrouped(opened(batch=12), 6))


def in_order(loaded: Loaded, seed: int, epoch: int) -> Iterator[tuple[int, Tensor]]:
    ((inputs, _),) = loaded.train(Part(epoch=epoch))
    return zip(order_of(TRAIN, seed, epoch).tolist(), inputs, strict=True)


def regrouped(loaded: Loaded, batch: int) -> list[Batch]:
    ((inputs, labels),) = loaded.train(Part(epoch=1))
    return list(zip(inputs.split(batch), labels.split(batch), strict=True))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_every_batch_and_no_image_is_decoded_twice(
    ranks: int, opened: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {name: list(getattr(opened(), name)(Part(epoch=1))) for name in ("train", "test", "calibrate")}
    decoded: list[str] = []
    load = image_folder.read_rgb

    def counting(path: str) -> Any:
        decoded.append(path)
        return load(path)

    monkeypatch.setattr(image_folder, "read_rgb", counting)
    for name, expected in whole.items():
        shares = [list(getattr(opened(), name)(Part(epoch=1, rank=rank, ranks=ranks))) for rank in range(ranks)]
        assert len(decoded) == len(set(decoded)) == sum(len(labels) for _, labels in expected)
        decoded.clear()
        for step, (inputs, labels) in enumerate(expected):
            pieces = [share[step] for share in shares if step < len(share)]
            assert torch.equal(torch.cat([x for x, _ in pieces]), inputs)
            assert torch.equal(torch.cat([y for _, y in pieces]), labels)


def test_an_empty_piece_of_the_last_test_batch_is_left_out(opened: Callable[..., Loaded]) -> None:
    sizes = [[len(y) for _, y in opened().test(Part(rank=rank, ranks=4))] for rank in range(4)]
    assert sizes == [[1, 1], [1, 1], [1, 1], [1]]


def test_training_workers_stay_and_evaluation_workers_go(opened: Callable[..., Loaded]) -> None:
    loaded = opened(workers=2)

    def workers() -> set[int]:
        return {child.pid for child in multiprocessing.active_children() if child.pid}

    before = workers()
    list(loaded.train(Part()))
    training = workers() - before
    assert len(training) == 2
    list(loaded.test(Part()))
    list(loaded.calibrate(Part()))
    list(loaded.train(Part(epoch=1)))
    assert workers() - before == training


def test_a_pass_may_be_given_up(opened: Callable[..., Loaded]) -> None:
    loaded, alone = opened(workers=2), opened()
    next(loaded.test(Part()))
    abandoned = list(islice(loaded.train(Part(epoch=1)), 1))
    assert equal(abandoned, list(alone.train(Part(epoch=1)))[:1])
    assert equal(list(loaded.train(Part(epoch=2))), list(alone.train(Part(epoch=2))))
    assert equal(list(loaded.test(Part())), list(alone.test(Part())))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_that_another_one_overtook_is_not_continued(workers: int, opened: Callable[..., Loaded]) -> None:
    loaded = opened(workers=workers)
    first = loaded.train(Part())
    next(first)
    list(loaded.test(Part()))
    next(first)
    list(loaded.train(Part()))
    with pytest.raises(RuntimeError, match="another pass over the same images was begun"):
        next(first)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "missing"])
def test_a_damaged_image_is_named(tmp_path: Path, workers: int, damage: str) -> None:
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (40, 40)).save(tmp_path / part / "a" / f"{number}.jpeg")
    data = ImageFolder(root=tmp_path, batch=4, size=32, resize=32, workers=workers)
    loaded = data.open(seed=0, device=CPU)
    for part, batches in (("train", loaded.train), ("train", loaded.calibrate), ("val", loaded.test)):
        file = tmp_path / part / "a" / "3.jpeg"
        saved = file.read_bytes()
        bad = {"truncated": saved[:400], "empty": b"", "text": b"<html>not found</html>"}
        file.unlink() if damage == "missing" else file.write_bytes(bad[damage])
        with pytest.raises(ValueError, match=f"^cannot read image {re.escape(str(file))}: .*; replace it"):
            list(batches(Part()))
        file.write_bytes(saved)
    assert len(list(loaded.train(Part()))) == 2, "and once it is replaced, training goes on"


def test_a_decoder_that_raises_anything_is_named(
    opened: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str) -> None:
        raise SyntaxError(f"broken PNG {path}")

    monkeypatch.setattr(image_folder, "read_rgb", broken)
    with pytest.raises(ValueError, match=r"cannot read image .*\.png: broken PNG"):
        next(opened().test(Part()))


def test_about_counts_the_folder_or_assumes_imagenet(root: Path, tmp_path: Path) -> None:
    data = ImageFolder(root=root, size=32)
    assert isinstance(data, Described)
    assert data.about() == About(classes=2, train=TRAIN, shape=(3, 32, 32))
    assumed = ImageFolder(root=tmp_path / "none").about()
    assert (assumed.classes, assumed.train, assumed.shape) == (1000, 1_281_167, (3, 224, 224))
    assert str(tmp_path / "none" / "train") in assumed.note
    assert "ILSVRC 2012" in assumed.note


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in ("full", "hollow"):
            (tmp_path / part / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / part / "full" / "0.jpeg")
    with pytest.raises(DataMissing, match="hollow"):
        ImageFolder(root=tmp_path, batch=1).open(seed=0, device=CPU)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"batch": 0}, "batch=0"),
        ({"workers": -1}, "workers=-1"),
        ({"resize": 100}, "resize=100: expected at least 224"),
        ({"calibration": 1}, "calibration=1"),
    ],
)
def test_bad_settings_are_refused(bad: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ImageFolder(**bad)  # type: ignore[arg-type]


def test_what_the_folder_does_not_have_is_refused(opened: Callable[..., Loaded]) -> None:
    with pytest.raises(ValueError, match="has only 13 images"):
        opened(batch=14)
    with pytest.raises(ValueError, match="start=4: an epoch has 3 batches"):
        opened().train(Part(start=4))
    with pytest.raises(ValueError, match="batch=4: 5 processes share it"):
        opened().train(Part(ranks=5))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_one_ahead_hands_out_all_items_in_order(count: int) -> None:
    made: list[int] = []
    items = one_ahead(number for number in range(count) if not made.append(number))  # type: ignore[func-returns-value]
    for number in range(count):
        assert next(items) == number
        assert made == list(range(min(number + 2, count)))
    assert list(items) == []
