"""Which images lie in which class: FOLDER/CLASS/..., as torchvision's ImageFolder has them, but for what is hidden."""

import os
from pathlib import Path
from typing import NamedTuple

from supermask.data.base import DataMissing

_MOST = 5  # names in an error


class ClassFolders(NamedTuple):
    """The images of a folder.

    Attributes:
        paths, labels: of each image, its file and the number of its class.
        classes: names, in the order of their numbers.
    """

    paths: list[str]
    labels: list[int]
    classes: list[str]


def find_images(folder: Path) -> ClassFolders:
    """The images below `folder`, class by class; hidden folders (`.ipynb_checkpoints`) and files (`._0.jpeg`) are none.

    Raises:
        DataMissing: there is no image at all, or none of a class.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    folder = folder.expanduser()
    classes = sorted(found.name for found in folder.glob("*") if found.is_dir() and not _hidden(found.name))
    paths: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    for label, name in enumerate(classes):
        within = os.path.join(folder, name)
        for parent, _, files in sorted(os.walk(within, followlinks=True)):
            if not _hidden(os.path.relpath(parent, folder)):
                images = (f for f in sorted(files) if f.lower().endswith(IMG_EXTENSIONS) and not _hidden(f))
                paths += (os.path.join(parent, file) for file in images)
        if len(paths) == len(labels):
            empty.append(name)
        labels += [label] * (len(paths) - len(labels))
    if not paths:
        raise DataMissing(
            f"No images in {folder}: download ImageNet (ILSVRC 2012, image-net.org) or any other set of images, and "
            f"put it there as {folder.parent}/train/CLASS/*.jpeg and {folder.parent}/val/CLASS/*.jpeg, or name another "
            "folder with --data.root."
        )
    if empty:
        raise DataMissing(
            f"No images in {folder} of {len(empty)} of its {len(classes)} classes: {listed(empty)}; put them there, as "
            f"{', '.join(IMG_EXTENSIONS)}, or remove the folders that are no classes"
        )
    return ClassFolders(paths, labels, classes)


def check_same(root: Path, train: list[str], val: list[str]) -> None:
    """Raise ValueError where the classes of ROOT/train and ROOT/val are not the same."""
    only = {"train": sorted(set(train) - set(val)), "val": sorted(set(val) - set(train))}
    said = [f"{part} alone has {listed(names)}" for part, names in only.items() if names]
    if said:
        raise ValueError(
            f"{root}: train has {len(train)} classes and val {len(val)}, and they are not the same: "
            f"{' and '.join(said)}; give both parts every class, or remove the folders that are no classes"
        )


def listed(names: list[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"{names[:_MOST]}{more}"


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split(os.sep) if part != ".")
