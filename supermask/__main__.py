"""Command line of the library: `python -m supermask report RUN...`, and commands on tickets."""

import sys
from collections.abc import Callable

import tyro

from supermask.commands.report import report
from supermask.commands.tickets import COMMANDS
from supermask.data.base import DataDamaged, DataMissing
from supermask.reports.page import ReportError
from supermask.runs.read import MaskFileError, RunReadError
from supermask.tickets.errors import TicketError


def main() -> None:
    """Run a command; exits with 2 and one sentence where what it was given is at fault."""
    commands: dict[str, Callable[..., None]] = {"report": report, **COMMANDS}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="python -m supermask", description="supermask's tools")
    except (DataDamaged, DataMissing, MaskFileError, ReportError, RunReadError, TicketError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
