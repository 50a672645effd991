"""Command line of the library: `python -m supermask report RUN...`."""

import sys
from pathlib import Path

import tyro

from supermask.overlap import MaskFileError
from supermask.report import ReportError, write_report
from supermask.runs import RunReadError


def report(runs: tyro.conf.Positional[tuple[Path, ...]], /, out: Path = Path("report")) -> None:
    """Write a page and pictures that compare runs.

    Args:
        runs: run folders.
        out: folder to write into.
    """
    print(write_report(runs, out))


COMMANDS = {"report": report}


def main() -> None:
    """Run a command; exits with 2 and one sentence where what it was given is at fault."""
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="python -m supermask", description="supermask's tools")
    except (MaskFileError, ReportError, RunReadError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
