"""The constants of score keys are those of the C extension; that the keys order as scores do is tested with select."""

import re
from pathlib import Path

import pytest

from supermask.kernels.base import keys, native

CSRC = Path(native.__file__).parents[1] / "csrc"


@pytest.mark.parametrize("name", ["NAN_KEY", "REMOVED_KEY", "INF_BITS"])
def test_c_has_the_same_constants(name: str) -> None:
    sources = "".join(path.read_text() for path in CSRC.glob("*.[ch]"))
    (said,) = re.findall(rf"^#define {name} (.+)$", sources, re.MULTILINE)
    assert sum(int(number, 0) for number in re.findall(r"-?\w+", said.replace(" ", ""))) == getattr(keys, name)
