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

from supermask.data.base import Loaded, Part
from supermask.data.held_out import split
from supermask.data.image_folder import ImageFolder
from supermask.data.image_sets import CIFAR10
from tests.supermask.data.test_image_sets import COLOURED, TEST, TRAIN, Write, content

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
    assert torch.equal(seen(kept, "test"), seen(everything, "test"))
    assert torch.equal(torch.cat([seen(kept, "train"), seen(held, "test")]).unique(dim=0),
                       seen(everything, "train").unique(dim=0))  # fmt: skip
    assert len(seen(kept, "train").unique(dim=0)) == 16
    assert torch.equal(seen(kept, "calibrate"), seen(kept, "train"))
    assert ImageFolder(root=tmp_path / "none", hold_out=0.01).about().train == 1_268_355


@pytest.mark.parametrize(
    ("kind", "bad", "says"),
    [
        (CIFAR10, {"hold_out": -1}, "hold_out=-1"),
        (CIFAR10, {"hold_out": 50_000}, "below 50,000"),
        (CIFAR10, {"evaluate": "held_out"}, "hold_out=0"),
        (CIFAR10, {"evaluate": "train", "hold_out": 5}, "evaluate='train'"),
        (ImageFolder, {"hold_out": 1.0}, "hold_out=1.0"),
        (ImageFolder, {"hold_out": float("nan")}, "hold_out=nan"),
        (ImageFolder, {"evaluate": "held_out"}, "hold_out=0"),
    ],
)
def test_bad_settings_are_refused(kind: type[Any], bad: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kind(**bad)
