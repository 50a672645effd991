"""The command `report`."""

from pathlib import Path

import tyro

from supermask.reports.page import write_report


def report(runs: tyro.conf.Positional[tuple[Path, ...]], /, out: Path = Path("report")) -> None:
    """Write a page and pictures that compare runs.

    Args:
        runs: run folders.
        out: folder to write into.
    """
    print(write_report(runs, out))
