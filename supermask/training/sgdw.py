"""SGD with decoupled weight decay: Loshchilov & Hutter 2019, "Decoupled weight decay regularization", Algorithm 1."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class SGDW(torch.optim.Optimizer):
    """SGD whose weight decay does not pass through the momentum:

        m = momentum * m + lr * g
        w = (1 - lr * weight_decay) * w - m

    The schedule's rate is in m as it was when the gradient came, and multiplies the decay, as in torch.optim.AdamW; the
    paper's lambda is weight_decay times the highest rate.

    Args:
        params: parameters, or groups of them.
        lr: a float or a tensor of one element on the device of the parameters, which is read where a step runs.
        momentum: from 0 to below 1.
        weight_decay: from 0 up.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float | Tensor,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        if not isinstance(lr, Tensor) and not lr >= 0:
            raise ValueError(f"lr={lr}: expected none below 0")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum}: expected a number from 0 to below 1")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay={weight_decay}: expected none below 0")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "capturable": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update what has a gradient; a `closure` is called first, with gradients on, and its value returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group)
        return loss

    def _step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        lr, decay = group["lr"], group["weight_decay"]
        change = gradient * lr
        if group["momentum"]:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            change = state["momentum_buffer"].mul_(group["momentum"]).add_(change)
        if decay:
            parameter.mul_(1 - lr * decay)
        parameter.sub_(change)
