"""Tables on a terminal."""

from collections.abc import Collection, Sequence

from rich import box
from rich.table import Table


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str] = ()) -> Table:
    """Columns are right-aligned but those that are named in `left`."""
    made = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        made.add_column(column, justify="left" if column in left else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made
