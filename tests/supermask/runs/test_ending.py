"""How a command ends where its output goes nowhere, or where an error has no sentence of its own."""

import json
from pathlib import Path

import pytest

from supermask.runs.ending import told
from tests.recipes.command import run

FULL = "cannot write to standard output: No space left on device\n"
WHY = 'raise SupermaskError("why")'
SCRIPT = """
import os, sys
from rich.console import Console
from supermask.checks import SupermaskError
from supermask.runs.ending import told

with told():
    {}
"""


@pytest.mark.parametrize(
    ("does", "how", "status", "says"),
    [
        ('print("x" * 200_000)', "unread", 141, ""),
        ('print("x")', "unread", 141, ""),
        ('Console().print("x")', "unread", 141, ""),
        (f'print("x"); {WHY}', "unread", 2, "why\n"),
        ("sys.exit(0)", "unread", 141, ""),  # so help ends, and older parsers let no error of its output through
        ('print("x" * 200_000)', "full", 1, FULL),
        ('print("x")', "full", 1, FULL),
        ('Console().print("x")', "full", 1, FULL),
        (f'print("x"); {WHY}', "full", 2, "why\n"),
        ('print("x")', "closed", 0, ""),
        (WHY, "closed", 2, "why\n"),
        (WHY, "stderr full", 2, ""),
        (WHY, "stderr closed", 2, ""),
        ('open("/nowhere/at/all")', "", 2, "/nowhere/at/all: No such file or directory\n"),
        ('sys.exit("as it says")', "", 1, "as it says\n"),
        ("os.kill(os.getpid(), 2)", "", 130, "interrupted by SIGINT\n"),
        ("os.kill(os.getpid(), 15)", "", 143, "interrupted by SIGTERM\n"),
    ],
)
def test_status_and_sentence(does: str, how: str, status: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(does))
    asked, results = tmp_path / "cases.json", tmp_path / "results.jsonl"
    case = {"arguments": [], "how": how, "cwd": str(tmp_path)}
    asked.write_text(json.dumps({"module": "script", "cases": [case]}))
    run("tests.supermask.commands.sweep.batch", asked, results, cwd=tmp_path)
    found = json.loads(results.read_text())
    assert (found["status"], found["err"]) == (status, says)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "another pipe"), OSError("the memory is gone")])
def test_an_error_of_no_file_and_no_output_is_not_hidden(error: OSError) -> None:
    with pytest.raises(OSError, match=r"another pipe|the memory is gone"), told():
        raise error
