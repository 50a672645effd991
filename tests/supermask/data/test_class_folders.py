"""Folders of classes: hidden ones are none, empty ones are told, and a plan finds what a run does."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder as Torchvision

from supermask.data.base import DataMissing, Part
from supermask.data.class_folders import find_images
from supermask.data.image_folder import ImageFolder

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            for number in range(4):
                picture(tmp_path / part / name / f"{number}.png")
    return tmp_path


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40)).save(path)


def data(root: Path) -> ImageFolder:
    return ImageFolder(root=root, batch=2, size=32, resize=32, workers=0)


def hide(root: Path, what: str) -> None:
    for part in ("train", "val"):
        {
            "empty checkpoints": lambda part=part: (root / part / ".ipynb_checkpoints").mkdir(),
            "checkpoints": lambda part=part: picture(root / part / ".ipynb_checkpoints" / "0-checkpoint.png"),
            "in train alone": lambda: picture(root / "train" / ".ipynb_checkpoints" / "0-checkpoint.png"),
            "within a class": lambda part=part: picture(root / part / "cat" / ".ipynb_checkpoints" / "0.png"),
            "finder": lambda part=part: (root / part / ".DS_Store").write_bytes(b"\0"),
            "archiver": lambda part=part: (root / part / "dog" / "._0.png").write_bytes(b"\0\5\x16\7"),
        }[what]()


@pytest.mark.parametrize(
    "what", ["empty checkpoints", "checkpoints", "in train alone", "within a class", "finder", "archiver"]
)
def test_what_is_hidden_is_no_class_and_no_image(what: str, root: Path) -> None:
    hide(root, what)
    about, loaded = data(root).about(), data(root).open(seed=0, device=CPU)
    assert (about.classes, about.train, about.note) == (2, 8, "")
    assert (loaded.classes, loaded.steps) == (2, 4)
    assert sum(len(labels) for _, labels in loaded.test(Part())) == 8


def empty(root: Path, what: str) -> None:
    if what == "an empty class":
        for part in ("train", "val"):
            (root / part / "hollow").mkdir()
    elif what == "an empty class of val":
        picture(root / "train" / "hollow" / "0.png")
        (root / "val" / "hollow").mkdir()
    elif what == "no image":
        for part in ("train", "val"):
            (root / part / "hollow").mkdir()
            (root / part / "hollow" / "notes.txt").write_text("")
    elif what == "a class of train alone":
        picture(root / "train" / "lone" / "0.png")
    elif what == "a class of val alone":
        picture(root / "val" / "lone" / "0.png")
    elif what == "no val":
        (root / "val").rename(root / "test")
    else:
        (root / "train").rename(root / "training")


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("an empty class", r"train of 1 of its 3 classes: \['hollow'\]"),
        ("an empty class of val", r"val of 1 of its 3 classes: \['hollow'\]"),
        ("no image", r"train of 1 of its 3 classes: \['hollow'\]"),
        ("a class of train alone", r"train alone has \['lone'\]"),
        ("a class of val alone", r"val alone has \['lone'\]"),
        ("no val", "No images in .*val: download"),
        ("another level", "No images in .*train: download"),
    ],
)
def test_a_plan_is_refused_as_the_run_is(what: str, says: str, root: Path) -> None:
    empty(root, what)
    for ask in (data(root).about, lambda: data(root).open(seed=0, device=CPU)):
        with pytest.raises((DataMissing, ValueError), match=says):
            ask()


def test_only_where_there_is_no_folder_imagenet_is_assumed(tmp_path: Path) -> None:
    assert "assumed to be ImageNet" in data(tmp_path / "nowhere").about().note
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(DataMissing):
            data(path).about()


def test_order_and_labels_are_torchvisions(root: Path) -> None:
    for name in ("cat/b/1.JPG", "cat/a/2.jpeg", "dog/z.webp", "Ant/0.png", "cat/b/c/0.png", "cat/notes.txt"):
        path = root / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    known = Torchvision(str(root / "train"))
    found = find_images(root / "train")
    assert list(zip(found.paths, found.labels, strict=True)) == known.samples
    assert found.classes == known.classes
