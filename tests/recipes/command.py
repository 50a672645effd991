"""Recipes run as a user runs them: a module on the command line, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from tests.places import ROOT


def run(module: str, *arguments: object, cwd: Path, own_group: bool = False) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE ARGUMENTS` in `cwd`, with its output; in a process group of its own, if asked."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, start_new_session=own_group
    )
