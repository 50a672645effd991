"""Command line of the library: `python -m supermask report RUN...`, and commands on tickets."""

import sys
from collections.abc import Callable
from pathlib import Path

import tyro

from supermask.data import DataDamaged, DataMissing
from supermask.overlap import MaskFileError
from supermask.report import ReportError, write_report
from supermask.runs import RunReadError
from supermask.ticket_commands import COMMANDS
from supermask.ticket_container import TicketError


def report(runs: tyro.conf.Positional[tuple[Path, ...]], /, out: Path = Path("report")) -> None:
    """Write a page and pictures that compare runs.

    Args:
        runs: run folders.
        out: folder to write into.
    """
    print(write_report(runs, out))


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
