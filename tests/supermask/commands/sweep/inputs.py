"""What commands of the sweep are given: small data sets, tickets and runs, each also damaged in every way."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

from supermask import Architecture, save
from supermask.recipes import digits_ep
from supermask.runs.folder import RunFolder
from tests.supermask.tickets.networks import mlp, searched

DAMAGES: dict[str, Callable[[Path], object]] = {
    "folder": lambda file: (file.unlink(), file.mkdir()),
    "random": lambda file: file.write_bytes(np.random.default_rng(0).bytes(3000)),
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3]),
}
TICKET = Architecture(name="mlp", arguments={"sizes": [64, 32, 10]})


def make(root: Path) -> None:
    """Fill `root`: whole/NAME, and DAMAGE/NAME for each damage, NAME being a data set, `ticket` or `run`."""
    whole = root / "whole"
    whole.mkdir(parents=True)
    generator = np.random.default_rng(0)
    cifar(whole / "cifar10" / "cifar-10-batches-bin", [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"], 1)
    cifar(whole / "cifar100" / "cifar-100-binary", ["train", "test"], 2)
    (whole / "svhn").mkdir()
    for part in ("train", "test"):
        pixels = generator.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
        savemat(whole / "svhn" / f"{part}_32x32.mat", {"X": pixels, "y": np.arange(1, 5, dtype=np.uint8)[:, None]})
    for path in (f"{part}/{name}/{number}.png" for part in ("train", "val") for name in "ab" for number in (0, 1)):
        (whole / "imagenet" / path).parent.mkdir(parents=True, exist_ok=True)
        noise = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(whole / "imagenet" / path)
    save(searched(mlp(64, 32, 10), 8, 64, remaining=0.3), whole / "ticket", architecture=TICKET)
    begun_run(whole / "run")
    for name, damage in DAMAGES.items():
        shutil.copytree(whole, root / name)
        for file in (path for path in (root / name).rglob("*") if path.is_file()):
            if file.suffix not in (".pt", ".safetensors"):
                damage(file)


def begun_run(path: Path) -> None:
    """A run that has done nothing yet, so that a report of it has no picture, which takes a second to draw."""
    recipe = digits_ep.recipe()
    folder = RunFolder(path)
    folder.write_config(recipe.to_json(recipe.architecture(10), torch.device("cpu"), 1))
    folder.close()


def cifar(folder: Path, files: list[str], labels: int) -> None:
    """Files of four records."""
    folder.mkdir(parents=True)
    for name in files:
        records = np.random.default_rng(1).integers(0, 256, (4, labels + 3072), dtype=np.uint8)
        records[:, :labels] %= 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
