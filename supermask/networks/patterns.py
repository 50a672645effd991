"""Layers by name, place or shell pattern."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

_PLACES = {"first": 0, "last": -1}


def matches(name: str, pattern: str, names: Sequence[str]) -> bool:
    """Whether `pattern` is, or matches, the layer `name`: "first" and "last" are those of `names`, in the network's
    order, and what is one of the names is neither that nor a pattern."""
    if pattern in names:
        return name == pattern
    return name == names[_PLACES[pattern]] if pattern in _PLACES else fnmatchcase(name, pattern)
