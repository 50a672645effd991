"""The checks of trackers, as a command."""

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    checks = [str(path) for path in sorted(Path(__file__).parent.glob("check_*.py"))]
    sys.exit(pytest.main(["-n", "0", *checks, *sys.argv[1:]]))
