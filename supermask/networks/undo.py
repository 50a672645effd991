"""Changing a network or leaving it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Undo what the block did to the modules of `model`, if it raises: parameters, buffers, submodules, attributes,
    what is trained, and where the data of tensors lie. What it writes into those data stays written."""
    modules = list(model.modules())
    held = [(module, {name: _copied(value) for name, value in vars(module).items()}) for module in modules]
    tensors = [(t, t.data, t.requires_grad) for t in (*model.parameters(), *model.buffers())]
    try:
        yield
    except BaseException:
        for module, attributes in held:
            vars(module).clear()
            vars(module).update(attributes)
        for tensor, data, trained in tensors:
            tensor.data = data
            tensor.requires_grad_(trained)
        raise


def _copied(value: object) -> object:
    return dict(value) if type(value) is dict else value
