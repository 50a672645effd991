"""Where the first infinity or NaN of a forward stands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from supermask.checks import SupermaskError


class NonFiniteError(SupermaskError, ArithmeticError):
    """The loss or a score became NaN or infinite; the message names the step, the layer at fault and what to try."""

    status = 1


@torch.no_grad()
def first_non_finite(model: nn.Module, inputs: Tensor) -> str | None:
    """Where values stop being finite when `model` runs on `inputs`: the inputs, a parameter or a module's output."""
    if not torch.isfinite(inputs).all():
        return "the input batch"
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"parameter {name}"
    found: list[str] = []
    with _on_output(model, lambda name: found.append(f"output of layer {name}")):
        model(inputs)
    return found[0] if found else None


@contextmanager
def _on_output(model: nn.Module, report: Callable[[str], object]) -> Iterator[None]:
    def hook(name: str) -> Callable[..., None]:
        def check(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                report(name)

        return check

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
