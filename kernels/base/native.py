"""The C extension, where it was built and the processor has AVX-512: loaded on first use, called through ctypes.

It is optional in three ways: installing without a compiler leaves it out, another processor leaves it unused, and
SUPERMASK_KERNELS=torch turns it off. What it computes the PyTorch path computes too; tests hold the two together.
"""

import ctypes
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base.choice import chosen

__all__ = ["LAYER", "call", "library", "parallel_entry", "threads", "usable", "why_not"]

_KINDS = {"p": ctypes.c_void_p, "l": ctypes.c_int64, "i": ctypes.c_int, "f": ctypes.c_float}

LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "scores", "survivors", "rows", "cols", "words", "kept", "low", "high", "room", "capacity", "grad",
            "momentum", "signs", "base", "constant", "coats", "tau", "last_tied", "first_chunk", "above",
            "inside",
        )
    ]
)  # fmt: skip
"""layer_t of kernels/csrc/search.c: 8 bytes a field."""


@cache
def parallel_entry() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that torch loads for everyone to see; None where there is none."""
    found = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    return None if found is None else ctypes.cast(found, ctypes.c_void_p).value


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
    size = getattr(loaded, "sm_layer_size", lambda: 0)()
    if size != LAYER.itemsize:
        return f"the extension is of other sources (its layer_t has {size} bytes, not {LAYER.itemsize}): install again"
    if not loaded.sm_supported():
        return "this processor has no AVX-512 (F, BW, DQ, VL)"
    loaded.sm_threads_from(ctypes.c_void_p(parallel_entry()))
    return loaded


def why_not() -> str | None:
    """Why CPU kernels do not take the C extension, or None where they do (on how many threads, `threads` says).

    Raises:
        ValueError: SUPERMASK_KERNELS holds something that is no choice.
    """
    choice = chosen()
    if choice != "native":
        return f"SUPERMASK_KERNELS={choice}"
    loaded = library()
    return loaded if isinstance(loaded, str) else None


def usable() -> bool:
    """Whether CPU kernels take the C extension; raises as `why_not` does."""
    return why_not() is None


def threads() -> int:
    """How many threads the C extension takes: torch's own number, or 1 where torch's OpenMP runtime has no
    GOMP_parallel to start them with (a runtime other than GNU's and LLVM's, or none)."""
    return 1 if parallel_entry() is None else torch.get_num_threads()


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
    """Run the extension's function `name` on `threads()` threads.

    Args:
        signature: as `function` takes it.
        arguments: numbers, and for addresses numbers or contiguous CPU tensors or None (null).
    """
    plain = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]  # the tensors live as long as `arguments`
    function(name, signature)(*plain, threads())
