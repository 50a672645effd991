"""`--import MODULE` of every command: modules of the user's, which register networks, imported before the rest of the
command line is read. A ticket, a run folder and a configuration never name one."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from supermask.checks import SupermaskError, cut
from supermask.runs.interrupts import Interrupted

_FLAG = "--import"
_HELP = f"""\
{_FLAG} MODULE, before or after any other option and as often as needed, imports a module first, from the working
directory as `python -m` does: one that calls supermask.register, say."""
_LONGEST = 400  # characters of what an error quotes
_Parsed = TypeVar("_Parsed")


class ImportFailed(SupermaskError, ImportError):
    """A module that was to be imported and is not there, or raises; the message says which, and where it was looked
    for."""


IMPORTED: list[str] = []
"""What the command line of this process asked for, in its order: the processes of a grid import it too."""


def parsed(parse: Callable[[list[str]], _Parsed], arguments: Sequence[str] | None = None) -> _Parsed:
    """What `parse` makes of the command line, without its imports, which are done before.

    Args:
        arguments: the command line, by default this process's.

    Raises:
        ImportFailed: one of the modules is not there, or raises.
    """
    modules, rest = _apart(sys.argv[1:] if arguments is None else arguments)
    for module in modules:
        take(module)
        if module not in IMPORTED:
            IMPORTED.append(module)
    try:
        return parse(rest)
    except SystemExit as end:
        if not end.code and {"-h", "--help"} & set(rest):
            print(_HELP)
        raise


def take(module: str) -> None:
    """Import a module, from the working directory as `python -m` would.

    Raises:
        ImportFailed: it is not there, or raises.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        name = module.removesuffix(".py").strip("./").replace("/", ".")
        hint = f": give its name as imports have it, {name}" if all(map(str.isidentifier, name.split("."))) else ""
        raise ImportFailed(f"{_FLAG} {module}: that is no module's name{hint}")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path and not sys.flags.safe_path:
        sys.path.insert(0, here)
    try:
        import_module(module)
    except Interrupted:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _failed(module, error) from error
        looked = [path for path in sys.path if Path(path).is_dir()]
        raise ImportFailed(
            f"{_FLAG} {module}: no module is called {error.name!r}: looked for in {', '.join(looked)}; begin in the "
            "folder that has it, or name that folder in PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:  # whatever it runs into
        raise _failed(module, error) from error


def _apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules to import, and the other arguments."""
    modules: list[str] = []
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument == _FLAG:
            module = next(left, "-")
            if module.startswith("-"):
                raise ImportFailed(f"{_FLAG}: name a module after it")
            modules.append(module)
        elif argument.startswith(f"{_FLAG}="):
            modules.append(argument.removeprefix(f"{_FLAG}="))
        else:
            rest.append(argument)
    return modules, rest


def _failed(module: str, error: BaseException) -> ImportFailed:
    """What it raised, and in which line; the last that is no part of Python's own import."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith("<frozen")]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f" ({error.filename}, line {error.lineno})"
    said = str(error.msg if isinstance(error, SyntaxError) else error)
    return ImportFailed(f"{_FLAG} {module}: it raises {cut(f'{type(error).__name__}: {said}', _LONGEST)}{place}")
