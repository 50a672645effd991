"""Names of what is in a module."""

import numpy as np
import pytest
import torch

from supermask.checks import as_integer, join


@pytest.mark.parametrize(
    ("name", "part", "whole"),
    [("", "bias", "bias"), ("fc", "bias", "fc.bias"), ("a.b", "c.d", "a.b.c.d"), (".a", "b", ".a.b"), ("", ".a", ".a")],
)
def test_join_adds_a_dot_between_and_takes_none_away(name: str, part: str, whole: str) -> None:
    assert join(name, part) == whole


def test_integers_of_python_and_numpy_are_integers_and_truths_are_not() -> None:
    for value in (5, np.int64(5), np.uint64(5), torch.tensor(5)):
        assert as_integer("seed", value) == 5
        assert type(as_integer("seed", value)) is int
    for wrong in (True, np.True_, 5.0, np.float32(5), "5", None):
        with pytest.raises(TypeError, match=r"seed .*: expected an integer"):
            as_integer("seed", wrong)
