"""Names of what is in a module."""

import pytest

from supermask.checks import join


@pytest.mark.parametrize(
    ("name", "part", "whole"),
    [("", "bias", "bias"), ("fc", "bias", "fc.bias"), ("a.b", "c.d", "a.b.c.d"), (".a", "b", ".a.b"), ("", ".a", ".a")],
)
def test_join_adds_a_dot_between_and_takes_none_away(name: str, part: str, whole: str) -> None:
    assert join(name, part) == whole
