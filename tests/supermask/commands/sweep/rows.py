"""Every command there is, found in the code, with arguments that make it do its work at its smallest."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import recipes
from supermask.__main__ import COMMANDS
from supermask.commands.tickets import Form

Words = list[object]
TINY: Words = ["--network.name", "convmixer", "--network.arguments", "dim", 8, "depth", 1, "patch_size", 8]
DATA: dict[str, Words] = {
    "digits": ["--data.batch", 500],
    "digits32": ["--data.batch", 2, "--data.images-per-epoch", 4, *TINY],
    "cifar10": ["--data.batch", 2, *TINY],
    "cifar100": ["--data.batch", 2, *TINY],
    "svhn": ["--data.batch", 2, *TINY],
    "imagenet": [
        "--data.batch", 2, "--data.size", 32, "--data.resize", 32, "--data.workers", 0, "--data.calibration", 2,
        "--training.warmup", 0, *TINY,
    ],
}  # fmt: skip
"""By the first word of a recipe's name, what makes it quick."""
DOWNLOADED = {"cifar10", "cifar100", "svhn", "imagenet"}
FORMS = get_args(Form)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A command.

    Attributes:
        name: as the table has it: a module and its first words.
        kind: recipe, grid, or the name of one of supermask's own.
        data: the data set of a recipe.
        words: after the module, up to its flags.
        flags: that make it quick.
    """

    name: str
    kind: str
    data: str = ""
    words: tuple[str, ...] = ()
    flags: tuple[object, ...] = ()

    @property
    def module(self) -> str:
        return self.name.split()[0]


def rows() -> list[Row]:
    """All of them."""
    return [*recipe_rows(), *own_rows()]


def recipe_rows() -> Iterator[Row]:
    """Recipes, of those with methods the first method; and grids."""
    for found in pkgutil.iter_modules(recipes.__path__):
        if found.name.startswith("_"):
            continue
        module = importlib.import_module(f"supermask.recipes.{found.name}")
        name, data = f"recipes.{found.name}", found.name.split("_")[0]
        if not hasattr(module, "recipe"):
            yield Row(name=name, kind="grid", flags=tuple(grid_flags(module)))
            continue
        flags = ["--training.epochs", 1, "--run.device", "cpu", *DATA[data]]
        if "cycles" in inspect.signature(module.recipe).parameters:
            flags += ["--cycles", 1]
        words = (next(iter(module.METHODS)).lower().replace(" ", "-"),) if hasattr(module, "METHODS") else ()
        yield Row(name=" ".join([name, *words]), kind="recipe", data=data, words=words, flags=tuple(flags))


def grid_flags(module: object) -> Words:
    """One seed, one epoch (two, of which one anneals), and as few runs as there can be."""
    flags: Words = ["--seeds", 1, "--epochs", 1, "--device", "cpu", "--workers", 1, "--folder", "grid"]
    if hasattr(module, "Layerwise"):
        return [*flags, "--epochs", 2, "--cycles", 1, "--lrs", 0.3]
    if hasattr(module, "Table1"):
        return [*flags, "--remaining", 0.5]
    return flags if hasattr(module, "DISTRIBUTIONS") else [*flags, "--cycles", 1]


def own_rows() -> Iterator[Row]:
    """Commands of `python -m supermask`; convert once for each form."""
    for name in COMMANDS:
        for form in FORMS if name == "convert" else [""]:
            words = [name, *(["--to", form] if form else [])]
            yield Row(name=" ".join(["supermask", *words]), kind=name, words=tuple(words))


def arguments(row: Row, inputs: Path) -> Words:
    """What `row` is given where nothing is wrong, after its words; files are below `inputs`, and it writes to the
    folder it is run in."""
    ticket, run = inputs / "ticket", inputs / "run"
    if row.kind == "recipe":
        root: Words = ["--data.root", inputs / row.data] if row.data in DOWNLOADED else []
        return [*row.flags, *root, "--run.folder", "out"]
    if row.kind == "grid":
        return [*row.flags, "--out", "out"]
    given: dict[str, Words] = {
        "report": [run, "--out", "out"],
        "inspect": [ticket, "--json"],
        "verify": [ticket],
        "diff": [ticket, ticket, "--json"],
        "convert": [ticket, out_name(row)],
        "eval": [ticket, "--data", "digits", "--device", "cpu", "--json"],
    }
    return given[row.kind]


def out_name(row: Row) -> str:
    """What the command writes."""
    return "out.pt2" if row.words[-1:] in (("export",), ("aoti",)) else "out"
