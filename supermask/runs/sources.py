"""Whose code a class or a function is, what it is called whichever way it was imported, and the digest of its source.

Code of the user's is called after its file alone, so that `python -m lab.mine`, `python lab/mine.py` and
`import lab.mine` give one name; two files of one name have two digests.
"""

import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256
from inspect import unwrap
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch

Named = type | Callable[..., Any]
"""What has a module and a qualified name."""

PACKAGE = Path(__file__).resolve().parents[1]
_RECIPES, _KERNELS = (PACKAGE / "recipes").resolve(), (PACKAGE / "kernels").resolve()  # links, in a clone
_OF_RECIPES = (
    "_experiment.py",
    "_grid.py",
    "_picking.py",
    "_plan.py",
    "_settings.py",
)  # whoever adds a recipe to a clone adds code of their own
_STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = ("site-packages", "dist-packages")
_LIBRARIES = [Path(str(one.__file__)).resolve().parent for one in (torch, np)]


def is_own(named: Named) -> bool:
    """Whether it is supermask's."""
    file = _file_of(named.__module__)
    return file is not None and _own_file(file)


@lru_cache(maxsize=4096)  # a grid asks this of every part of every run
def _own_file(file: Path) -> bool:
    if file.parent == _RECIPES:
        return file.name in _OF_RECIPES
    return file.is_relative_to(PACKAGE) or file.is_relative_to(_KERNELS)


def is_users(named: Named) -> bool:
    """Whether it is neither supermask's nor of Python, torch and numpy."""
    if named.__module__ is None:  # of C code
        return False
    file = _file_of(named.__module__) or _file_of(top := named.__module__.partition(".")[0])
    if file is None:
        origin = getattr(getattr(sys.modules.get(top), "__spec__", None), "origin", None)
        return origin not in ("built-in", "frozen")
    return not (_library_file(file) or is_own(named))


@lru_cache(maxsize=4096)
def _library_file(file: Path) -> bool:
    standard = file.is_relative_to(_STANDARD) and not any(part in _INSTALLED for part in file.parts)
    return standard or any(map(file.is_relative_to, _LIBRARIES))


def qualified(named: Named) -> str:
    """Its module and name: of supermask's and of libraries as they are imported, of the user's the file and name."""
    module = named.__module__ or "builtins"
    if is_users(named):
        module = _stem(module)
    elif module.startswith(("supermask.recipes.", "supermask.kernels.")):
        module = module.removeprefix("supermask.")
    name = getattr(named, "__qualname__", None) or getattr(named, "__name__", type(named).__name__)
    return f"{module}.{name}{_place(named)}"


def called(recipe: Callable[..., Any]) -> str:
    """What grids call a recipe: its module, the same for a folder of a clone and a part of supermask, and its name."""
    module = recipe.__module__.removeprefix("supermask.")
    return f"{_stem(module) if module in ('__main__', '__mp_main__') else module}.{recipe.__qualname__}"


def made_by_code(kind: type) -> bool:
    """Whether a class is one that no file spells out: another function's, or a notebook's."""
    return "<locals>" in kind.__qualname__ or _file_of(kind.__module__) is None


def sources(named: Named) -> dict[str, str]:
    """SHA-256 by name of each source file of the user's that defines it: of a class, those of its bases too.

    Code without a file, as that of a notebook, has the digest of what it was compiled to.
    """
    found: dict[str, str] = {}
    for one in _defining(named):
        if not is_users(one):
            continue
        name, digest = _stem(one.__module__), _digest(one)
        if digest and found.get(name) not in (None, digest):  # two files of one name
            digest = sha256((found[name] + digest).encode()).hexdigest()
        if digest:
            found[name] = digest
    return found


def _defining(named: Named) -> Iterator[Named]:
    if isinstance(named, type):
        yield from named.__mro__
    else:
        yield named
        if (inner := unwrap(named)) is not named:
            yield inner


def _digest(named: Named) -> str | None:
    file = _file_of(named.__module__)
    try:
        if file is not None:
            return sha256(file.read_bytes()).hexdigest()
    except OSError:
        pass  # of an archive, or gone
    codes = [one.__code__ for one in functions(named)]
    return sha256(repr([_compiled(code) for code in codes]).encode()).hexdigest() if codes else None


def functions(named: Named) -> list[FunctionType]:
    """The function, or those of the class, in the order of their names."""
    if not isinstance(named, type):
        return [named] if isinstance(named, FunctionType) else []
    found = []
    for _, value in sorted(vars(named).items()):
        held = [getattr(value, name, None) for name in ("__func__", "fget", "func")]  # of methods and properties
        found += [one for one in (*held, value) if isinstance(one, FunctionType)]
    return found


def _compiled(code: CodeType) -> tuple[Any, ...]:
    constants: list[Any] = []
    for one in code.co_consts:
        ordered = sorted(map(repr, one)) if isinstance(one, frozenset) else one
        constants.append(_compiled(one) if isinstance(one, CodeType) else repr(ordered))
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


def _file_of(module: str | None) -> Path | None:
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    if file is None:
        return None
    return _resolved(file) if os.path.isabs(file) else Path(file).resolve()


@lru_cache(maxsize=4096)
def _resolved(file: str) -> Path:
    return Path(file).resolve()


def _stem(module: str) -> str:
    """The last part of what imports call the module: of a script that runs, its file's name."""
    if module in ("__main__", "__mp_main__"):  # the second in a process of a grid
        main = sys.modules.get(module)
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name.removesuffix(".__main__") if spec else Path(file).stem if file else "__main__"
    return module.rpartition(".")[2]


def _place(named: Named) -> str:
    """Of a lambda line and column in its file, which tell it from others there."""
    code = getattr(named, "__code__", None)
    if getattr(named, "__name__", "") != "<lambda>" or not isinstance(code, CodeType):
        return ""
    columns = [column or 0 for _, _, column, end in code.co_positions() if end]  # the first instructions have no place
    return f":{code.co_firstlineno}:{min(columns, default=0)}"
