"""A recipe as a typed command line."""

import sys
from collections.abc import Callable

import tyro

from supermask.data.base import DataDamaged, DataMissing
from supermask.runs.folder import RunFolderError
from supermask.runs.interrupts import Interrupted
from supermask.runs.options import RecipeError
from supermask.runs.recipe import Recipe
from supermask.tickets.errors import TicketError
from supermask.training.non_finite import NonFiniteError
from supermask.training.parallel import RanksDisagree


def main(recipe: Callable[..., Recipe]) -> None:
    """Command line of a recipe: its function's arguments become typed flags; then run it.

    Exits with 2 and one sentence where the data, the folder or an argument is at fault, with 1 where training broke
    down, and with 128 + the signal where one ended it.
    """
    try:
        planned: Recipe = tyro.cli(recipe)
    except ValueError as error:  # tyro itself exits; this is a configuration's own check
        print(error, file=sys.stderr)
        sys.exit(2)
    try:
        planned.execute()
    except (DataMissing, DataDamaged, RecipeError, RunFolderError, TicketError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except (NonFiniteError, RanksDisagree) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal)
