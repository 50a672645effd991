"""Columns have the types of what they hold."""

import sys

import numpy as np
import pytest

from supermask.columns import NotInstalled, data_frame


def test_types() -> None:
    rows = [
        {"whole": 1, "large": 2**63, "some": 1, "ratio": 1, "both": 1, "yes": True, "maybe": True, "text": "a"},
        {"whole": -2, "large": 3, "some": None, "ratio": 0.5, "both": "b", "yes": False, "maybe": None, "text": None},
    ]
    frame = data_frame(rows, {"never": float, "ratio": float})
    assert list(frame.columns) == ["never", "ratio", "whole", "large", "some", "both", "yes", "maybe", "text"]
    types = {name: str(dtype) for name, dtype in frame.dtypes.items() if name not in ("both", "text")}
    assert types == {
        "never": "float64", "ratio": "float64", "whole": "int64", "large": "uint64", "some": "float64",
        "yes": "bool", "maybe": "boolean",
    }  # fmt: skip
    assert frame["large"].tolist() == [2**63, 3]
    assert np.isnan(frame["some"][1])
    assert frame["both"].tolist() == ["1", "b"]
    assert frame["text"].isna().tolist() == [False, True]


def test_numbers_that_no_type_holds_and_lists_are_text() -> None:
    frame = data_frame([{"a": 2**63, "b": [1, 2]}, {"a": -1, "b": []}], {})
    assert frame["a"].tolist() == [str(2**63), "-1"]
    assert frame["b"].tolist() == ["[1, 2]", "[]"]


def test_no_rows_keep_the_declared_types() -> None:
    frame = data_frame([], {"n": int, "x": float, "yes": bool, "text": str})
    assert [str(dtype) for dtype in frame.dtypes] == ["int64", "float64", "bool", "object"]
    assert len(frame) == 0


def test_without_pandas_the_error_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(NotInstalled, match=r'a DataFrame needs pandas: pip install "supermask\[frames\]"'):
        data_frame([], {})
