"""A recipe as a typed command line, and how commands end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tyro

from supermask.checks import SupermaskError
from supermask.runs.interrupts import Interrupted
from supermask.runs.recipe import Recipe


def main(recipe: Callable[..., Recipe]) -> None:
    """Command line of a recipe: its function's arguments become typed flags; then run it.

    Exits with 2 and one sentence where the data, the folder or an argument is at fault, with 1 where training broke
    down, and with 128 + the signal where one ended it.
    """
    with told(ValueError):  # tyro itself exits; this is a configuration's own check
        planned: Recipe = tyro.cli(recipe)
    with told():
        planned.execute()


@contextmanager
def told(*besides: type[Exception]) -> Iterator[None]:
    """Within the block what goes wrong ends the command with its sentence and its status; `besides` do so with 2."""
    try:
        yield
    except (SupermaskError, Interrupted) as error:  # who catches the first is not to swallow Ctrl-C
        print(error, file=sys.stderr)
        sys.exit(error.status)
    except besides as error:
        print(error, file=sys.stderr)
        sys.exit(SupermaskError.status)
