"""Tensors of a layer that the module around it reads, and computes with: a search cannot take them away.

A forward that hands `self.proj.bias` on to a layer's function does well with None, as layers without a bias have; one
that reads `self.proj.bias.float()` or `1 + self.norm.weight` does not. What a class computes with stands in its source.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from torch import nn

from supermask.checks import join
from supermask.edges.wrappers import modules_inside

_TAKEN = ("weight", "bias")
_AT_BEGIN = ("init", "reset")
"""What functions are called that are over before a search begins."""
_ARITHMETIC = ("add", "sub", "mul", "div", "addmm", "mm", "matmul", "copy", "type_as")
_OF_TENSORS = frozenset(f"{name}{place}" for name in _ARITHMETIC for place in ("", "_"))
"""Methods of a tensor that compute with another."""
_ANY = "*"  # an element of a container


def computed_with(model: nn.Module) -> dict[str, str]:
    """Tensors called weight or bias that the module around their layer computes with, by name: the kind of that
    module."""
    found: dict[str, str] = {}
    for name, module in modules_inside(model):
        kind: Any = type(module)
        for path in _read_by(kind):
            *layer, part = path
            for inner in _at(module, layer):
                found[join(join(name, inner), part)] = kind.__name__
    return found


def _at(module: nn.Module, path: Sequence[str]) -> Iterator[str]:
    """The names of submodules at a path; an element of a container is any of them."""
    if not path:
        yield ""
        return
    children = dict(module.named_children())
    for name in children if path[0] == _ANY else [path[0]]:
        if name in children:
            for inner in _at(children[name], path[1:]):
                yield join(name, inner) if inner else name


@cache
def _read_by(kind: Any) -> tuple[tuple[str, ...], ...]:
    """Paths of what a class computes with: ("proj", "bias") of `self.proj.bias.float()`. None of one without source."""
    found: set[tuple[str, ...]] = set()
    for one in kind.__mro__:
        if one.__module__.startswith(("torch.", "supermask.")) or not issubclass(one, nn.Module):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
        except (OSError, TypeError, SyntaxError):
            continue
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and not any(word in function.name for word in _AT_BEGIN):
                found.update(_Function(function).reads())
    return tuple(sorted(found))


class _Function:
    """A method, and the names in it that stand for `self`, its layers and their tensors."""

    def __init__(self, function: ast.FunctionDef) -> None:
        self._function = function
        arguments = (*function.args.posonlyargs, *function.args.args)
        self._names: dict[str, tuple[str, ...]] = {arguments[0].arg: ()} if arguments else {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                self._call(node.targets[0], self.path(node.value))
            elif isinstance(node, ast.For | ast.comprehension) and (path := self.path(node.iter)) is not None:
                self._call(node.target, (*path, _ANY))

    def _call(self, target: ast.AST, path: tuple[str, ...] | None) -> None:
        if isinstance(target, ast.Name) and path:
            self._names[target.id] = path

    def path(self, node: ast.AST) -> tuple[str, ...] | None:
        """From self to what `node` is, if it is a layer or a tensor of one."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        if isinstance(node, ast.Attribute):
            before = self.path(node.value)
            return None if before is None else (*before, node.attr)
        if isinstance(node, ast.Subscript):
            before = self.path(node.value)
            tensor = before is not None and before[-1:] and before[-1] in _TAKEN
            return None if before is None or tensor else (*before, _ANY)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            before, name = self.path(node.args[0]), node.args[1]
            if before is not None and isinstance(name, ast.Constant):
                return (*before, str(name.value))
        return None

    def reads(self) -> set[tuple[str, ...]]:
        """Paths of the tensors that it computes with."""
        return set(self._operands(self._function, frozenset()))

    def _tensor(self, node: ast.AST) -> tuple[str, ...] | None:
        path = self.path(node)
        return path if path and len(path) > 1 and path[-1] in _TAKEN else None

    def _operands(self, node: ast.AST, there: frozenset[Any]) -> Iterator[tuple[str, ...]]:
        """What is computed with in `node`, without that of which it was asked whether it is `there`."""
        for operand in _computed(node):
            path = self._tensor(operand)
            if path and path not in there:
                yield path
        if isinstance(node, ast.If | ast.IfExp):
            there = there.union(self._asked(node.test))
        elif isinstance(node, ast.BoolOp):
            there = there.union(self._asked(node))
        for child in ast.iter_child_nodes(node):
            yield from self._operands(child, there)

    def _asked(self, test: ast.AST) -> Iterator[tuple[str, ...] | None]:
        """What a condition asks for being there."""
        if isinstance(test, ast.BoolOp):
            for value in test.values:
                yield from self._asked(value)
        elif isinstance(test, ast.UnaryOp):
            yield from self._asked(test.operand)
        elif isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is | ast.IsNot):
            yield self._tensor(test.left)
        else:
            yield self._tensor(test)


def _computed(node: ast.AST) -> Iterator[ast.AST]:
    """The operands of `node` that have to be tensors."""
    if isinstance(node, ast.Attribute | ast.Subscript):
        yield node.value
    elif isinstance(node, ast.BinOp):
        yield from (node.left, node.right)
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.AugAssign):
        yield node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        function = node.func
        of_torch = isinstance(function.value, ast.Name) and function.value.id == "torch"
        if of_torch or function.attr in _OF_TENSORS:
            for argument in node.args:
                yield argument
                if isinstance(argument, ast.List | ast.Tuple):
                    yield from argument.elts
