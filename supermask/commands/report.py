"""The command `report`."""

from pathlib import Path

import tyro

from supermask.reports.figures import Format
from supermask.reports.page import write_report


def report(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    /,
    out: Path = Path("report"),
    label: tuple[str, ...] = (),
    format: tuple[Format, ...] = ("png",),
) -> None:
    """Write a page and pictures that compare runs.

    Args:
        runs: run folders.
        out: folder to write into.
        label: what to call the lines, in the order in which their first runs are named.
        format: of the pictures beside the page: several can be named.
    """
    print(write_report(runs, out, labels=label, forms=format))
