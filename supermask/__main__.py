"""Command line of the library: `python -m supermask report RUN...`, and commands on tickets."""

from collections.abc import Callable, Mapping

import tyro

from supermask.commands import tickets
from supermask.commands.report import report
from supermask.runs.ending import told
from supermask.runs.imports import parsed

COMMANDS: Mapping[str, Callable[..., None]] = {"report": report, **tickets.COMMANDS}


def main() -> None:
    """Run a command; exits with 2 and one sentence where what it was given is at fault."""
    with told():
        parsed(
            lambda arguments: tyro.extras.subcommand_cli_from_dict(
                dict(COMMANDS), prog="python -m supermask", description="supermask's tools", args=arguments
            )
        )


if __name__ == "__main__":
    main()
