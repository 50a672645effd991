"""Every command against every fault: one sentence, the right exit status, nothing left behind."""

from pathlib import Path

import pytest

from supermask.__main__ import COMMANDS
from tests.supermask.commands.sweep import inputs
from tests.supermask.commands.sweep.columns import FAULTS, Fault
from tests.supermask.commands.sweep.rows import Row, rows
from tests.supermask.commands.sweep.sweep import put
from tests.supermask.commands.sweep.table import PAGE, with_table

ROWS = rows()


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep") / "inputs"
    inputs.make(root)
    return root


def alike(one: Row, other: Row) -> bool:
    """Both are recipes of one data set, or both are grids: what they run is in one place."""
    return (one.kind, one.data) == (other.kind, other.data) and one.kind in ("recipe", "grid")


def first_of_its_kind(row: Row) -> bool:
    """No other before it is alike."""
    return not any(alike(other, row) for other in ROWS[: ROWS.index(row)])


LATE = [fault for fault in FAULTS if fault.late]
EARLY = [fault for fault in FAULTS if not fault.late]
OTHERS = [row for row in ROWS if not first_of_its_kind(row)]


def check(row: Row, faults: list[Fault], given: Path, scratch: Path) -> None:
    outcomes = put(row, given, scratch, faults)
    assert outcomes
    assert not {outcome.fault.name: outcome.wrong for outcome in outcomes if outcome.wrong}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_command_takes_every_fault(row: Row, given: Path, tmp_path: Path) -> None:
    check(row, EARLY if row in OTHERS else FAULTS, given, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("row", OTHERS, ids=lambda row: row.name)
def test_a_command_takes_faults_once_it_runs(row: Row, given: Path, tmp_path: Path) -> None:
    check(row, LATE, given, tmp_path)


def test_the_table_of_the_docs_is_this_one() -> None:
    page = PAGE.read_text()
    assert with_table(page) == page, "write it: python -m tests.supermask.commands.sweep"
    assert {row.kind for row in ROWS} == {"recipe", "grid", *COMMANDS}
