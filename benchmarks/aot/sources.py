"""Which code a case compiles, as a digest: whether rows read from a committed table are still of the code at hand.

What a case starts, and in which configurations, is decided by the modules of `supermask.kernels` that it names and by
all that these import of `supermask.kernels`, however far; what its rows then say, by the files that compile and read.
Files count whole, so that a comment is a change: compiling once more than needed is safe, and once less is not.
"""

import ast
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, ModuleType

from supermask import kernels

__all__ = ["KERNELS", "digest", "files_of"]

KERNELS = Path(kernels.__file__).parent
_PACKAGE = kernels.__name__
_READERS = "cases", "about", "compile", "resources", "code", "limits"


def _named(code: CodeType, names: dict[str, object], seen: set[CodeType]) -> Iterator[str]:
    """The modules of `supermask.kernels` that a function names, and those functions that it names of its own file."""
    if code in seen:
        return
    seen.add(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):  # a function within
            yield from _named(constant, names, seen)
    for name in code.co_names:
        value = names.get(name)
        if isinstance(value, ModuleType) and value.__name__.startswith(f"{_PACKAGE}."):
            yield value.__name__
        elif getattr(value, "__globals__", None) is names:
            yield from _named(value.__code__, names, seen)  # type: ignore[attr-defined]


def _imports(path: Path) -> Iterator[str]:
    """All that a file imports, wherever in it, and of a module's names those that may be modules."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file_of(module: str, root: Path) -> Path | None:
    """Where a module of `supermask.kernels` lies; None of another, and of a name that is none."""
    package, _, within = module.partition(f"{_PACKAGE}.")
    if package or not within:
        return None
    path = root.joinpath(*within.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def files_of(call: Callable[[], object], root: Path = KERNELS) -> set[Path]:
    """The files of `supermask.kernels` on which a case depends.

    Args:
        call: of `benchmarks.aot.cases.CASES`.
        root: the folder of `supermask.kernels`, or a copy of it.
    """
    names = call.__globals__
    left: list[str] = [*_named(call.__code__, names, set())]
    found: set[Path] = set()
    while left:
        path = _file_of(left.pop(), root)
        if path is not None and path not in found:
            found.add(path)
            left += _imports(path)
    return found


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    total = hashlib.sha256()
    for name, path in sorted(files):
        total.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def digest(call: Callable[[], object], root: Path = KERNELS) -> str:
    """16 digits that differ where a file differs on which the case depends; arguments as in `files_of`."""
    own = ((path.relative_to(root).as_posix(), path) for path in files_of(call, root))
    readers = ((f"{name}.py", Path(__file__).with_name(f"{name}.py")) for name in _READERS)
    return _digest([*own, *readers])
