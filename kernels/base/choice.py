"""SUPERMASK_KERNELS in the environment: which way CPU tensors are to take, read at every call."""

import os
from typing import Literal

__all__ = ["Choice", "chosen"]

Choice = Literal["native", "torch", "triton"]
_CHOICES: dict[str, Choice] = {"native": "native", "torch": "torch", "triton": "triton"}


def chosen() -> Choice:
    """The C extension where it is usable ("native", the default), PyTorch alone, or Triton's launchers, interpreted.

    Raises:
        ValueError: the variable holds something else.
    """
    choice = os.environ.get("SUPERMASK_KERNELS", "native")
    if choice not in _CHOICES:
        raise ValueError(f"SUPERMASK_KERNELS={choice!r}: expected 'native', 'torch' or 'triton'")
    return _CHOICES[choice]
