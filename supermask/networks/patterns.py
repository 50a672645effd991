"""Layers by name or shell pattern."""

from collections.abc import Container
from fnmatch import fnmatchcase


def matches(name: str, pattern: str, names: Container[str]) -> bool:
    """Whether `pattern` is, or matches, the layer `name`; what is one of the `names` is no pattern."""
    return name == pattern if pattern in names else fnmatchcase(name, pattern)
