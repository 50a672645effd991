"""Options from a command line, by argparse: benchmarks of kernels run where nothing but torch, Triton and rich are."""

import argparse
import ast
import inspect
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, fields
from itertools import pairwise
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Opts = TypeVar("Opts")


def parse(kind: type[Opts], arguments: Sequence[str] | None, *, description: str, prog: str | None = None) -> Opts:
    """The options that `arguments` give; each field is a flag, and the string below it the flag's help.

    Args:
        kind: a dataclass whose fields have defaults and are numbers, strings, paths, choices or tuples of them, a bool
            that is False, or any of these or None.
    """
    parser = argparse.ArgumentParser(prog=prog or _program(), description=description, allow_abbrev=False)
    hints, said = get_type_hints(kind), _said(kind)
    for field in fields(kind):  # type: ignore[arg-type]
        assert field.default is not MISSING, field
        flag = "--" + field.name.replace("_", "-")
        shown = "" if field.default is None else f" ({field.default})"
        options = {
            "dest": field.name,
            "default": field.default,
            "help": (said.get(field.name, "") + shown).replace("%", "%%"),
        }
        parser.add_argument(flag, **options, **_how(hints[field.name]))
    return kind(**vars(parser.parse_args(arguments)))


def _program() -> str | None:
    """The command that was given, where a module was: argparse would name its file."""
    spec = sys.modules["__main__"].__spec__
    return None if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


def _how(hint: Any) -> dict[str, Any]:
    """What argparse is told of a type."""
    (hint,) = [part for part in get_args(hint) if part is not NoneType] if NoneType in get_args(hint) else [hint]
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is tuple:
        return {"nargs": "+", "action": _Tuple, "type": get_args(hint)[0]}
    return {"type": hint}


class _Tuple(argparse.Action):
    def __call__(self, _parser: Any, namespace: argparse.Namespace, values: Any, _flag: str | None = None) -> None:
        setattr(namespace, self.dest, tuple(values))


def _said(kind: type) -> dict[str, str]:
    """The string that stands below each field, of the class and those it extends."""
    found: dict[str, str] = {}
    for owner in kind.__mro__[:-1]:
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body  # type: ignore[attr-defined]
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found.setdefault(field.target.id, " ".join(str(text.value.value).split()))  # type: ignore[union-attr]
    return found
