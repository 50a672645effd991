"""Training images that are held out: the same for every seed, seen nowhere unless they are asked for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from supermask.data.base import Loaded, Part, in_memory
from supermask.data.digits import Digits, split_digits
from supermask.data.digits32 import Digits32, Drawing, ink, plain
from supermask.data.held_out import split
from supermask.data.image_folder import ImageFolder
from supermask.data.image_sets import CIFAR10, MNIST
from tests.supermask.data.test_image_sets import COLOURED, TEST, TRAIN, Write, content, write_mnist

CPU = torch.device("cpu")


@given(count=st.integers(1, 200), data=st.data())
def test_a_split_has_every_image_once_and_holding_out_more_takes_none_back(count: int, data: st.DataObject) -> None:
    held = data.draw(st.integers(0, count - 1))
    trained, out = split(count, held)
    assert sorted([*trained.tolist(), *out.tolist()]) == list(range(count))
    assert len(out) == held
    assert torch.equal(trained, trained.sort().values)
    fewer = data.draw(st.integers(0, held))
    assert set(split(count, fewer)[1].tolist()) <= set(out.tolist())


def test_a_split_is_the_same_whatever_was_drawn_before_it() -> None:
    torch.manual_seed(1)
    first = split(50, 5)[1]
    torch.manual_seed(2)
    assert torch.equal(split(50, 5)[1], first)
    assert first.tolist() != list(range(45, 50))


@pytest.mark.parametrize("held", [-1, 7, 8])
def test_a_set_that_is_all_held_out_is_refused(held: int) -> None:
    with pytest.raises(ValueError, match=f"hold_out={held}: the training set has 7 images"):
        split(7, held)


def seen(loaded: Loaded, what: str) -> Tensor:
    """All inputs of a pass, sorted by their content, so that the order is no matter."""
    inputs = torch.cat([inputs.flatten(1) for inputs, _ in getattr(loaded, what)(Part())])
    return inputs[torch.argsort(inputs.double() @ torch.arange(1, inputs.shape[1] + 1, dtype=torch.float64))]


@pytest.mark.parametrize(("kind", "write"), COLOURED)
def test_small_images_held_out_are_trained_on_nowhere(kind: type[Any], write: Write, tmp_path: Path) -> None:
    x, y = content(kind)
    write(tmp_path, x.numpy(), y.numpy())
    whole = kind(root=tmp_path, batch=1, augment="none")
    some = replace(whole, hold_out=12)
    opened = {data: data.open(seed=3, device=CPU) for data in (whole, some, replace(some, evaluate="held_out"))}
    everything, kept, held = opened.values()
    assert (everything.steps, kept.steps, held.steps) == (TRAIN, TRAIN - 12, TRAIN - 12)
    assert some.about().train == whole.about().train - 12
    assert torch.equal(seen(kept, "test"), seen(everything, "test"))
    assert len(seen(kept, "test")) == TEST
    assert torch.equal(seen(kept, "train"), seen(kept, "calibrate"))
    assert torch.equal(seen(kept, "train"), seen(held, "train"))
    parts = torch.cat([seen(kept, "train"), seen(held, "test")])
    assert len(seen(held, "test")) == 12
    assert len(parts.unique(dim=0)) == TRAIN
    assert torch.equal(parts.unique(dim=0), seen(everything, "train").unique(dim=0))
    assert everything.held_out is None
    assert torch.equal(seen(kept, "held_out"), seen(held, "test"))
    other = some.open(seed=4, device=CPU)
    assert torch.equal(seen(other, "train"), seen(kept, "train")), "the same for every seed"


def test_a_fraction_of_a_folder(tmp_path: Path) -> None:
    for part, count in (("train", 10), ("val", 3)):
        for label in range(2):
            folder = tmp_path / part / str(label)
            folder.mkdir(parents=True)
            for number in range(count):
                grey = 10 * number + 100 * label + 5 * (part == "val")
                Image.new("RGB", (8, 8), (grey, grey, grey)).save(folder / f"{number}.png")
    whole = ImageFolder(root=tmp_path, batch=4, size=8, resize=8, workers=0)
    some = replace(whole, hold_out=0.2)
    assert (whole.about().train, some.about().train) == (20, 16)
    everything, kept = (data.open(seed=0, device=CPU) for data in (whole, some))
    held = replace(some, evaluate="held_out").open(seed=0, device=CPU)
    assert (everything.steps, kept.steps) == (5, 4)
    assert everything.held_out is None
    assert torch.equal(seen(kept, "held_out"), seen(held, "test"))
    assert torch.equal(seen(kept, "test"), seen(everything, "test"))
    assert torch.equal(torch.cat([seen(kept, "train"), seen(held, "test")]).unique(dim=0),
                       seen(everything, "train").unique(dim=0))  # fmt: skip
    assert len(seen(kept, "train").unique(dim=0)) == 16
    assert torch.equal(seen(kept, "calibrate"), seen(kept, "train"))
    assert ImageFolder(root=tmp_path / "none", hold_out=0.01).about().train == 1_268_355


@pytest.mark.parametrize("kind", [Digits, MNIST])
def test_plain_images_are_held_out(kind: Any, tmp_path: Path) -> None:
    if kind is MNIST:
        write_mnist(tmp_path, *(part.numpy() for part in content(MNIST)))
    where = {"root": tmp_path} if kind is MNIST else {}
    whole = kind(batch=1, **where)
    everything, kept, held = (
        data.open(seed=3, device=CPU)
        for data in (whole, replace(whole, hold_out=10), replace(whole, hold_out=10, evaluate="held_out"))
    )
    assert (everything.held_out, everything.steps) == (None, kept.steps + 10)
    assert replace(whole, hold_out=10).about().train == whole.about().train - 10
    assert torch.equal(seen(kept, "train"), seen(held, "train"))
    assert torch.equal(seen(kept, "held_out"), seen(held, "test"))
    assert torch.equal(seen(kept, "test"), seen(everything, "test"))
    parts = torch.cat([seen(kept, "train"), seen(kept, "held_out")])
    assert torch.equal(parts.unique(dim=0), seen(everything, "train").unique(dim=0))
    assert len(seen(kept, "held_out")) == 10


def test_digits_held_out_are_drawn_nowhere() -> None:
    pixels, labels = split_digits()[0], split_digits()[2]
    kept, out = split(1000, 100)
    given: list[Tensor] = []
    real = Drawing.__init__

    def noting(self: Drawing, *own: Any, **named: Any) -> None:
        given.extend(own)
        real(self, *own, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Drawing, "__init__", noting)
        loaded = Digits32(hold_out=100, images_per_epoch=256).open(seed=0, device=CPU)
    assert torch.equal(given[0], pixels[kept])
    assert torch.equal(given[1], labels[kept])
    assert loaded.held_out is not None
    ((x, y),) = loaded.held_out(Part())
    assert torch.equal(y, labels[out])
    assert torch.equal(x, plain(ink(pixels[out])))
    assert all(len(batch[1]) == 128 for batch in loaded.train(Part()))
    assert replace(Digits32(), hold_out=100).about() == Digits32().about()
    evaluated = Digits32(hold_out=100, evaluate="held_out", images_per_epoch=256).open(seed=0, device=CPU)
    assert torch.equal(seen(evaluated, "test"), seen(loaded, "held_out"))


def test_held_out_tensors_of_ones_own_are_shared_by_processes() -> None:
    x, y = torch.arange(50, dtype=torch.float32)[:, None], torch.arange(50)
    loaded = in_memory(x, y, x[:3], y[:3], batch=8, seed=0, at_once=4, hold_out=10, prepare=lambda batch: batch + 100)
    kept, out = split(50, 10)
    assert loaded.held_out is not None
    whole = torch.cat([labels for _, labels in loaded.held_out(Part())])
    assert torch.equal(whole, out)
    shares = [list(loaded.held_out(Part(rank=rank, ranks=3))) for rank in range(3)]
    assert sorted(torch.cat([labels for share in shares for _, labels in share]).tolist()) == out.tolist()
    assert all(torch.equal(inputs[:, 0], labels + 100.0) for share in shares for inputs, labels in share)
    trained = torch.cat([labels for _, labels in loaded.train(Part())])
    assert sorted(trained.tolist()) == kept.tolist()
    assert (loaded.classes, loaded.steps) == (50, 5), "labels that are held out count"
    with pytest.raises(ValueError, match="hold_out=50: the training set has 50 images"):
        in_memory(x, y, x, y, batch=8, seed=0, hold_out=50)


def test_sets_that_hold_nothing_out_are_told_as_before() -> None:
    assert repr(Digits()) == "Digits(batch=32, layout='flat')"
    assert repr(Digits32()) == "Digits32(batch=128, images_per_epoch=50000)"
    assert repr(MNIST()) == f"MNIST(root={MNIST().root!r}, batch=128)"


@pytest.mark.parametrize(
    ("kind", "bad", "says"),
    [
        (CIFAR10, {"hold_out": -1}, "hold_out=-1"),
        (CIFAR10, {"hold_out": 50_000}, "below 50,000"),
        (CIFAR10, {"evaluate": "held_out"}, "hold_out=0"),
        (CIFAR10, {"evaluate": "train", "hold_out": 5}, "evaluate='train'"),
        (Digits, {"hold_out": 1000}, "hold_out=1000: expected from 0 to below 1,000"),
        (Digits, {"evaluate": "held_out"}, "hold_out=0"),
        (Digits32, {"hold_out": -5}, "hold_out=-5"),
        (MNIST, {"hold_out": 60_000}, "below 60,000"),
        (ImageFolder, {"hold_out": 1.0}, "hold_out=1.0"),
        (ImageFolder, {"hold_out": float("nan")}, "hold_out=nan"),
        (ImageFolder, {"evaluate": "held_out"}, "hold_out=0"),
    ],
)
def test_bad_settings_are_refused(kind: type[Any], bad: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kind(**bad)
