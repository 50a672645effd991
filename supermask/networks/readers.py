"""Tensors of a layer that the module around it reads, and computes with: a search cannot take them away.

A forward that hands `self.proj.bias` on to a function does well with None, as layers without a bias have; one that
reads `self.proj.bias.float()` or `1 + self.norm.weight` does not. What a class computes with stands in its source.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

from torch import nn

from supermask.checks import join
from supermask.edges.wrappers import modules_inside

_TAKEN = ("weight", "bias")
_AT_BEGIN = ("init", "reset")
"""What functions are called that are over before a search begins."""


def computed_with(model: nn.Module) -> dict[str, str]:
    """Tensors called weight or bias that the module around their layer computes with, by name: the kind of that
    module."""
    found: dict[str, str] = {}
    for name, module in modules_inside(model):
        kind: Any = type(module)
        for path in _read_by(kind):
            layer, _, part = path.rpartition(".")
            try:
                module.get_submodule(layer)
            except AttributeError:
                continue
            found[join(join(name, layer), part)] = type(module).__name__
    return found


@cache
def _read_by(kind: Any) -> tuple[str, ...]:
    """What a class computes with: "proj.bias" of `self.proj.bias.float()`. None of a class without source."""
    found: set[str] = set()
    for one in kind.__mro__:
        if one.__module__.startswith(("torch.", "supermask.")) or not issubclass(one, nn.Module):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
        except (OSError, TypeError, SyntaxError):
            continue
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and not any(word in function.name for word in _AT_BEGIN):
                found.update(_operands(function, frozenset()))
    return tuple(sorted(found))


def _operands(node: ast.AST, there: frozenset[str]) -> Iterator[str]:
    """Paths of what is computed with in `node`, without those of which it was asked whether they are `there`."""
    used: list[ast.AST] = []
    if isinstance(node, ast.Attribute | ast.Subscript):
        used = [node.value]
    elif isinstance(node, ast.BinOp):
        used = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not):
        used = [node.operand]
    for path in map(_path, used):
        if path and path not in there:
            yield path
    if isinstance(node, ast.If | ast.IfExp):
        there = there.union(_asked(node.test))
    elif isinstance(node, ast.BoolOp):
        there = there.union(_asked(node))
    for child in ast.iter_child_nodes(node):
        yield from _operands(child, there)


def _asked(test: ast.AST) -> Iterator[str]:
    """Paths of what a condition asks for being there."""
    if isinstance(test, ast.BoolOp):
        for value in test.values:
            yield from _asked(value)
    elif isinstance(test, ast.UnaryOp):
        yield from _asked(test.operand)
    elif isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is | ast.IsNot):
        yield _path(test.left)
    else:
        yield _path(test)


def _path(node: ast.AST) -> str:
    """The path from self to a tensor that a search may take, if `node` is one: "proj.bias"."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    ours = isinstance(node, ast.Name) and node.id == "self" and len(parts) > 1 and parts[0] in _TAKEN
    return ".".join(reversed(parts)) if ours else ""
