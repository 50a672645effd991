"""Recipes run as a user runs them: a module on the command line, in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.places import ROOT


@cache
def server() -> subprocess.Popen[str]:
    """Forks a process for each command (tests/recipes/server.py); it ends with the tests, when its input does."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.recipes.server"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests
    )


def environment() -> dict[str, str]:
    """That of the tests, but with compiled kernels, buffered output, this clone's modules and wide tables."""
    own = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "PYTHONUNBUFFERED")}
    return {**own, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}


def run(module: str, *arguments: object, cwd: Path, own_group: bool = False) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE ARGUMENTS` in `cwd`, with its output; in a process group of its own, if asked."""
    command = [module, *map(str, arguments)]
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        request = {
            "module": module,
            "arguments": command[1:],
            "cwd": str(cwd),
            "environment": environment(),
            "out": out.name,
            "err": err.name,
            "own_group": own_group,
        }
        asked = server()
        assert asked.stdin
        assert asked.stdout
        asked.stdin.write(json.dumps(request) + "\n")
        asked.stdin.flush()
        status = int(asked.stdout.readline())
        return subprocess.CompletedProcess(command, status, out.read(), err.read())
