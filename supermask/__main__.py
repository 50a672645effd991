"""Command line of the library: `python -m supermask report RUN...`, and commands on tickets."""

from collections.abc import Callable

import tyro

from supermask.commands.report import report
from supermask.commands.tickets import COMMANDS
from supermask.runs.main import told


def main() -> None:
    """Run a command; exits with 2 and one sentence where what it was given is at fault."""
    commands: dict[str, Callable[..., None]] = {"report": report, **COMMANDS}
    with told():
        tyro.extras.subcommand_cli_from_dict(commands, prog="python -m supermask", description="supermask's tools")


if __name__ == "__main__":
    main()
