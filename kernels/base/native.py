"""The C extension, where it was built and the processor has AVX-512: loaded on first use, called through ctypes.

It is optional in three ways: installing without a compiler leaves it out, another processor leaves it unused, and
SUPERMASK_KERNELS=torch turns it off. What it computes the PyTorch path computes too; tests hold the two together.
"""

import ctypes
import os
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["call", "library", "usable", "why_not"]

_KINDS = {"p": ctypes.c_void_p, "l": ctypes.c_int64, "i": ctypes.c_int, "f": ctypes.c_float}


@cache
def library() -> ctypes.CDLL | str:
    """The loaded extension, or why there is none."""
    found = PathFinder.find_spec("_native", [str(Path(__file__).parents[1] / "csrc")])  # a library, no module to import
    if found is None or found.origin is None:
        return "the extension was not built: install supermask where there is a C compiler"
    try:
        loaded = ctypes.CDLL(found.origin)
    except OSError as error:
        return f"the extension does not load: {error}"
    loaded.sm_supported.restype = ctypes.c_int
    if not loaded.sm_supported():
        return "this processor has no AVX-512 (F, BW, DQ, VL)"
    # torch loads its OpenMP runtime for everyone to see; where there is no such entry one thread does all the work.
    gomp = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    loaded.sm_threads_from(None if gomp is None else ctypes.cast(gomp, ctypes.c_void_p))
    return loaded


def why_not() -> str | None:
    """Why CPU kernels do not take the C extension, or None where they do."""
    choice = os.environ.get("SUPERMASK_KERNELS", "native")
    if choice != "native":
        return f"SUPERMASK_KERNELS={choice}"
    loaded = library()
    return loaded if isinstance(loaded, str) else None


def usable() -> bool:
    """Whether CPU kernels take the C extension."""
    return why_not() is None


@cache
def function(name: str, signature: str) -> Any:
    """The extension's function `name`; where it has run, its last argument is how many threads may.

    Args:
        signature: its arguments before that: p an address, l an int64, i an int, f a float.
    """
    loaded = library()
    if isinstance(loaded, str):
        raise RuntimeError(f"{name} is a function of the C extension: {loaded}")
    found = getattr(loaded, name)
    found.argtypes = [*(_KINDS[letter] for letter in signature), ctypes.c_int]
    found.restype = ctypes.c_int64
    return found


def call(name: str, signature: str, *arguments: Tensor | float | None) -> None:
    """Run the extension's function `name` on torch's number of threads.

    Args:
        signature: as `function` takes it.
        arguments: numbers, and for addresses numbers or contiguous CPU tensors or None (null).
    """
    plain = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]  # the tensors live as long as `arguments`
    function(name, signature)(*plain, torch.get_num_threads())
