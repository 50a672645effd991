"""Writes the table of docs/commands.md: `python -m tests.supermask.commands.sweep`."""

from tests.supermask.commands.sweep.table import PAGE, with_table

if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
