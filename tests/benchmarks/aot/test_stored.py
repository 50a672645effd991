"""Committed tables: the pages that show them, what is seen as worse, and which of them is the newest."""

from pathlib import Path

import pytest

from benchmarks.aot import stored
from benchmarks.aot.stored import DOCS, Stored, newest, of_installed, path_of, read, regressions
from benchmarks.aot.table import as_markdown

TABLES = sorted((DOCS / "resources").glob("triton-*.json"))


def test_there_are_tables_of_the_lowest_triton_and_of_a_newer_one() -> None:
    assert path_of("3.6.0") in TABLES
    assert len(TABLES) > 1
    assert sorted(path.with_suffix(".json") for path in (DOCS / "resources").glob("*.md")) == TABLES


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_page_is_of_its_table(path: Path) -> None:
    table = read(path)
    assert path == path_of(table.triton)
    assert path.with_suffix(".md").read_text() == as_markdown(table), "run python -m benchmarks.aot --changed --write"


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_no_table_has_spills_or_lacks_matrix_instructions(path: Path) -> None:
    assert [row for row in read(path).rows if row["spills"] or row["matrix_missing"]] == []


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = newest()
    table.write(tmp_path / "table.json")
    assert read(tmp_path / "table.json") == table


def test_versions_are_ordered_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    for version in ("3.9.0", "3.10.0", "3.6.0"):
        Stored(triton=version, digests={}, rows=[]).write(path_of(version))
    assert newest().triton == "3.10.0"
    monkeypatch.setattr(stored, "version", lambda package: "3.7.0")
    assert of_installed() is None
    monkeypatch.setattr(stored, "version", lambda package: "3.6.0")
    assert of_installed() == Stored(triton="3.6.0", digests={}, rows=[])


def test_a_regression_is_seen() -> None:
    committed = newest().by_key()
    rows = [dict(row) for row in committed.values()]
    assert regressions(rows, committed) == []
    row = next(row for row in rows if row["per_edge"] is not None)
    row["per_edge"] = row["per_edge"] * 1.03 + 0.06
    (said,) = regressions(rows, committed)
    assert row["kernel"] in said
    assert "per_edge is" in said
