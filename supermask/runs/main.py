"""A recipe as a typed command line."""

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Annotated, Any, Union

import tyro

from supermask.methods.method import Method
from supermask.runs.ending import told
from supermask.runs.imports import parsed
from supermask.runs.recipe import Recipe


def main(
    recipe: Callable[..., Recipe],
    *,
    methods: Mapping[str, Method] | None = None,
    dense: Callable[..., Recipe] | None = None,
) -> None:
    """Command line of a recipe: its function's arguments become typed flags, and `--import MODULE` imports a module of
    the user's first; then run it.

    Exits with 2 and one sentence where the data, the folder or an argument is at fault, with 1 where training broke
    down, and with 128 + the signal where one ended it (supermask/runs/ending.py).

    Args:
        recipe: gives what is run.
        methods: rows such as those of `supermask.METHODS`. Each is then a subcommand: "soft iEP" is soft-iep, with the
            method's fields as flags --method.NAME beside those of `recipe`, which is called as
            `recipe("soft_iep", method=...)`.
        dense: one more subcommand beside the methods.
    """
    says = None if methods is None else sys.modules[recipe.__module__].__doc__
    commands = recipe if methods is None else subcommands(recipe, methods, dense)
    with told(ValueError), warnings.catch_warnings():  # tyro itself exits; this is a configuration's own check
        # A setting may be code, which no flag can say: it stays what the recipe has.
        warnings.filterwarnings("ignore", message=r"The field .* is annotated with type", category=UserWarning)
        planned: Recipe = parsed(lambda arguments: tyro.cli(commands, prog=program(), description=says, args=arguments))
    with told():
        planned.execute()


def program() -> str | None:
    """What this program was called by, as usage lines have it: python -m MODULE, or the script's name."""
    spec = sys.modules["__main__"].__spec__
    return None if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


def subcommands(
    recipe: Callable[..., Recipe], methods: Mapping[str, Method], dense: Callable[..., Recipe] | None
) -> Any:
    """A type for tyro: one of these recipes."""
    made = []
    for label, method in methods.items():
        name = name_of(label)
        made.append(_subcommand(name, in_words(method), partial(recipe, name, method=method)))
    if dense:
        made.append(_subcommand("dense", (dense.__doc__ or "").partition("\n")[0], dense))
    return Union[tuple(made)]  # noqa: UP007


def in_words(method: Method) -> str:
    """A row in a sentence: what its class says, the settings that are not its class's, and the paper."""
    first = (type(method).__doc__ or type(method).__name__).partition("\n")[0].rstrip(".")
    values = {one.name: (getattr(method, one.name), one.default) for one in fields(method)}
    own = ", ".join(f"{name}={value}" for name, (value, default) in values.items() if value != default)
    return f"{first}{f'; here {own}' if own else ''}. {method.paper}."


def _subcommand(name: str, description: str, constructor: Callable[..., Recipe]) -> Any:
    said = tyro.conf.subcommand(name.replace("_", "-"), description=description, constructor=constructor)
    return Annotated[Any, said]


def name_of(label: str) -> str:
    """What runs of that row of METHODS are called."""
    return label.lower().replace(" ", "_").replace("-", "_")
