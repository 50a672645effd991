"""Python in a process of its own: that of the tests interprets kernels, so it cannot compile them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.places import ROOT


def run_alone(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python with `arguments` and environment `variables`; `folder` is Triton's cache."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    environment = inherited | {"TRITON_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
