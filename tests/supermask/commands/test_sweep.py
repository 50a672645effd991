"""Every command against every fault: one sentence, the right exit status, nothing left behind."""

from pathlib import Path

import pytest

from supermask.__main__ import COMMANDS
from tests.supermask.commands.sweep import inputs
from tests.supermask.commands.sweep.rows import Row, rows
from tests.supermask.commands.sweep.sweep import put
from tests.supermask.commands.sweep.table import PAGE, with_table

ROWS = rows()


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep") / "inputs"
    inputs.make(root)
    return root


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_command_takes_every_fault(row: Row, given: Path, tmp_path: Path) -> None:
    outcomes = put(row, given, tmp_path)
    assert not {outcome.fault.name: outcome.wrong for outcome in outcomes if outcome.wrong}


def test_the_table_of_the_docs_is_this_one() -> None:
    page = PAGE.read_text()
    assert with_table(page) == page, "write it: python -m tests.supermask.commands.sweep"
    assert {row.kind for row in ROWS} == {"recipe", "grid", *COMMANDS}
