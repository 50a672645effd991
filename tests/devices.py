"""The device that tests take, as SUPERMASK_TEST_DEVICE names it: the CPU, or a GPU, of CUDA or of ROCm.

tests/conftest.py reads the name before anything imports Triton, which interprets kernels for the CPU alone; workers
inherit it. Whoever imports this module asked for the device, so one that is not there is an error.
"""

import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.flags import exact_products

__all__ = [
    "CPU", "DEVICE", "ON_GPU", "VARIABLE", "On", "device_named", "exact_products", "home", "kernels_of", "mapped",
]  # fmt: skip

VARIABLE = "SUPERMASK_TEST_DEVICE"
CPU = torch.device("cpu")


def device_named(name: str) -> torch.device:
    """The device called `name`, a GPU with its index.

    Raises:
        ValueError: no such device, or none of its kind here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"{VARIABLE}={name!r} names no device that tests run on: expected cpu, cuda or cuda:N")
    if device.type == "cpu":
        return CPU
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise ValueError(
            f"{VARIABLE}={name!r}: torch {torch.__version__} finds no GPU here; run the tests where there is one, or "
            "without the variable, on the CPU"
        )
    index = device.index or 0
    if index >= count:
        raise ValueError(f"{VARIABLE}={name!r}: the GPUs here are cuda:0 to cuda:{count - 1}; name one of them")
    return torch.device("cuda", index)


DEVICE = device_named(os.environ.get(VARIABLE, "cpu"))
ON_GPU = DEVICE.type != "cpu"


def kernels_of(path: str) -> str:
    """What SUPERMASK_KERNELS says for tensors on DEVICE to take `path`: those of a GPU are launched whatever it says,
    and tensors of the CPU met on the way could not be."""
    return "native" if ON_GPU and path == "triton" else path


def mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`value` with `change` made to its tensors, those in lists, tuples, mappings and records."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(change, each) for each in value))
    if isinstance(value, list | tuple):
        found = [mapped(change, each) for each in value]
        return found if isinstance(value, list) else tuple(found)
    if isinstance(value, dict):
        return {key: mapped(change, each) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        held = {each.name: getattr(value, each.name) for each in fields(value) if each.init}
        return replace(value, **mapped(change, held))
    return value


class On(NamedTuple):
    """Takes tensors, and whatever has tensors in it, to `device`: copies, so that no path reads what another wrote,
    with the strides that they had."""

    device: torch.device

    def __call__(self, value: Any) -> Any:
        return mapped(self._copy, value)

    def _copy(self, tensor: Tensor) -> Tensor:
        plain = tensor.detach()
        size = plain.untyped_storage().nbytes() // plain.element_size()
        whole = plain.as_strided((size,), (1,), 0).to(self.device, copy=True)
        there = whole.as_strided(plain.shape, plain.stride(), plain.storage_offset())
        if isinstance(tensor, torch.nn.Parameter):
            return torch.nn.Parameter(there, tensor.requires_grad)
        return there.requires_grad_(tensor.requires_grad)


def home(value: Any) -> Any:
    """`value` with its tensors on the CPU, without what they were made of."""
    return mapped(lambda tensor: tensor.detach().to(CPU), value)
