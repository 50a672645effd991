"""Rows of numbers and text as a pandas DataFrame whose columns have the right types.

pandas and SciPy are an extra, `supermask[frames]`, and are imported when they are used.
"""

import json
import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from supermask.checks import SupermaskError

if TYPE_CHECKING:
    from pandas import DataFrame


class NotInstalled(SupermaskError, ImportError):
    """A package of an extra that is not there; the message says what installs it."""


def package(name: str, what: str) -> Any:
    """The module `name` of the extra `frames`, which `what` needs.

    Raises:
        NotInstalled: it cannot be imported.
    """
    try:
        return import_module(name)
    except ImportError as error:
        root = name.partition(".")[0]
        raise NotInstalled(f'{what} needs {root}: pip install "supermask[frames]"') from error


def data_frame(rows: Sequence[Mapping[str, Any]], declared: Mapping[str, type | None]) -> "DataFrame":
    """A DataFrame of these rows.

    A column of numbers is int64, or uint64 where one is too large for it, or float64 with NaN where a row has none; one
    of truth values is bool, or pandas' boolean where a row has none; any other is text.

    Args:
        rows: by column; None is no value.
        declared: columns that come first, with their types; None where the values say it. Others follow as they come.

    Raises:
        NotInstalled: there is no pandas.
    """
    pandas = package("pandas", "a DataFrame")
    names = dict.fromkeys((*declared, *(name for row in rows for name in row)))
    columns = {name: _column([row.get(name) for row in rows], declared.get(name)) for name in names}
    return pandas.DataFrame({name: pandas.Series(*column) for name, column in columns.items()})


def _column(values: Sequence[Any], declared: type | None) -> tuple[Any, None, str | None]:
    """Data, index and dtype of a column."""
    held = [value for value in values if value is not None]
    kinds = {type(value) for value in held}
    if declared is not None and not held:
        kinds = {declared}
    if kinds == {bool}:
        return values, None, "bool" if len(held) == len(values) else "boolean"
    if kinds <= {int, float}:
        if declared is not float and kinds == {int} and len(held) == len(values):
            if (dtype := _integers(held)) is not None:
                return np.array(held, dtype=dtype), None, dtype
        else:
            return np.array([math.nan if value is None else float(value) for value in values]), None, "float64"
    text = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return text, None, None if held else "object"


def _integers(values: Sequence[int]) -> str | None:
    """The type that holds all of them; None where none does."""
    low, high = min(values, default=0), max(values, default=0)
    return next(
        (dtype for dtype in ("int64", "uint64") if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max), None
    )
