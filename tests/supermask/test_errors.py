"""Errors have one base, a status, and the kinds they had; a command ends with one sentence."""

import importlib
import inspect
import pickle
import pkgutil

import pytest

import supermask
from supermask.checks import SupermaskError
from supermask.data.base import DataDamaged, DataMissing
from supermask.runs.ending import told
from supermask.runs.interrupts import Interrupted
from supermask.runs.options import RecipeError
from supermask.tickets.errors import TicketError
from supermask.training.non_finite import NonFiniteError
from supermask.training.parallel import RanksDisagree


def own_errors() -> set[type[BaseException]]:
    """Every exception class that a module of supermask defines, kernels and recipes apart."""
    found: set[type[BaseException]] = set()
    for module in pkgutil.walk_packages(supermask.__path__, "supermask."):
        if module.name.split(".")[1] not in ("__main__", "kernels", "recipes"):
            members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
            found |= {c for _, c in members if issubclass(c, BaseException) and c.__module__ == module.name}
    return {error for error in found if not issubclass(error, Warning)}


def test_every_error_has_the_one_base_but_the_one_that_is_no_exception() -> None:
    found = own_errors()
    assert len(found) >= 16
    assert {error for error in found if not issubclass(error, SupermaskError)} == {Interrupted}
    assert issubclass(Interrupted, KeyboardInterrupt)
    assert not issubclass(Interrupted, Exception)


def test_errors_keep_the_kinds_they_had() -> None:
    for error, kind in ((TicketError, ValueError), (DataDamaged, ValueError), (RecipeError, ValueError)):
        assert issubclass(error, kind)
    assert issubclass(NonFiniteError, ArithmeticError)
    assert issubclass(RanksDisagree, RuntimeError)
    assert supermask.SupermaskError is SupermaskError


def test_errors_cross_processes() -> None:
    for error in own_errors() - {Interrupted}:
        again = pickle.loads(pickle.dumps(error("why")))
        assert (type(again), str(again)) == (error, "why")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DataMissing("why"), 2),
        (TicketError("why"), 2),
        (NonFiniteError("why"), 1),
        (RanksDisagree("why"), 1),
        (Interrupted("why", 15), 143),
        (KeyError("why"), 2),
    ],
)
def test_a_command_ends_with_the_sentence_and_the_status(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left, told(KeyError):
        raise error
    assert left.value.code == status
    assert capsys.readouterr().err.count("why") == 1


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ValueError, match="a fault of the program"), told():
        raise ValueError("a fault of the program")
