"""Where things lie in a clone."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION_1 = ROOT / "tests" / "version1"  # tickets that the first version of the format wrote
VERSION_2 = ROOT / "tests" / "version2"  # and the second
