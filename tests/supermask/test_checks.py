"""Names of what is in a module, and numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from supermask.checks import as_integer, hold_numbers, join


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


@dataclass(kw_only=True)
class Numbers:
    count: int = 1
    rate: float = 0.5
    maybe: float | None = None
    several: tuple[float, ...] = ()
    counts: tuple[int, int] = (1, 2)
    either: int | str = 1
    named: tuple[int, str] = (1, "a")
    other: Any = None

    def __post_init__(self) -> None:
        hold_numbers(self)


def test_numbers_of_a_record_are_pythons() -> None:
    given = {
        "count": np.int64(2),
        "rate": np.float32(0.5),
        "maybe": np.float64(0.25),
        "several": [1, torch.tensor(0.5)],
    }
    held = Numbers(**given, either="a", other=np.int8(1))  # type: ignore[arg-type]
    assert held == Numbers(count=2, rate=0.5, maybe=0.25, several=(1, 0.5), either="a", other=1)
    assert [type(one) for one in (held.count, held.rate, held.maybe, *held.several)] == [int, float, float, int, float]
    assert Numbers(several=range(2), counts=np.array([3, 4])) == Numbers(several=(0, 1), counts=(3, 4))  # type: ignore[arg-type]
    assert type(Numbers(rate=1).rate) is int, "a configuration says what was said"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"count": 2.0}, r"count 2.0: expected an integer"),
        ({"count": None}, r"count None: expected an integer"),
        ({"rate": "0.1"}, r"rate '0.1': expected a number"),
        ({"rate": True}, r"rate True: expected a number"),
        ({"rate": np.True_}, r"rate .*True.*: expected a number"),
        ({"maybe": [0.1]}, r"maybe \[0.1\]: expected a number"),
        ({"rate": 1j}, r"rate 1j: expected a number"),
        ({"rate": np.complex64(1)}, r"rate .*: expected a number"),
        ({"rate": torch.ones(3)}, r"rate tensor.*: expected a number"),
        ({"several": 0.1}, r"several 0.1: expected several numbers"),
        ({"several": "0.1"}, r"several '0.1': expected several numbers"),
        ({"named": ("a", "a")}, r"named\[0\] 'a': expected an integer"),
        ({"several": [0.1, "x"]}, r"several\[1\] 'x': expected a number"),
        ({"counts": (1, 0.5)}, r"counts\[1\] 0.5: expected an integer"),
    ],
)
def test_what_is_no_number_is_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        Numbers(**given)
