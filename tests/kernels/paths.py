"""All ways to an op's code, where each has its tensors, and the plain statements of packed bits and special values
that the tests share."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from supermask.kernels.base.launch import interpreted
from supermask.kernels.select import cpu as threshold_cpu
from tests.devices import CPU, DEVICE, On, home, kernels_of

PATHS = ("torch", "native", "triton")
COMPILED = not interpreted()
"""Whether Triton's kernels take blocks of hundreds and thousands of edges, as compiled ones do, where the interpreter's
have tens: larger layers are needed then to fill several."""
GUARD = 1 << 16  # elements around every output, more than the widest block a kernel could write past its end
POISON = {torch.int32: -0x5A5A5A5B, torch.int64: -0x5A5A5A5B, torch.bool: True}  # NaN for the real dtypes
AS_BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}

SEEDS = st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
ROWS = st.sampled_from([1, 2, 3, 31, 33, 64, 65, 67])
COLS = st.sampled_from([1, 2, 31, 32, 33, 97, 127, 128, 129, 160, 257])

SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1e-45, -1e-45, 1.2e-38, 3.4e38, math.inf, -math.inf, math.nan, -math.nan)


def sizes(few: list[Any], compiled: list[Any]) -> st.SearchStrategy[Any]:
    """One of `few`, or, where kernels are compiled, of larger ones."""
    return st.sampled_from([*few, *(compiled if COMPILED else [])])


@contextmanager
def path(name: str) -> Iterator[On]:
    """Ops take the PyTorch implementation ("torch") or, where it was built, the C extension ("native"), both of the CPU
    alone, or the Triton launcher ("triton"): on a GPU where tests have one, else interpreted, for CPU tensors. What is
    given takes tensors to where the path has them.

    The first in blocks so small that many a test's layer takes several.
    """
    small = mock.patch.object(threshold_cpu, "_BLOCK", 500)  # private: it changes no result, so none but tests set it
    with mock.patch.dict(os.environ, SUPERMASK_KERNELS=kernels_of(name)), small:
        yield On(DEVICE if name == "triton" else CPU)


@contextmanager
def guarded() -> Iterator[None]:
    """Outputs are allocated full of poison, between guards that nothing may write."""
    made = []

    def empty(*shape: Any, dtype: torch.dtype = torch.float32, device: Any = "cpu", pin_memory: bool = False) -> Tensor:
        sizes = tuple(shape[0]) if not isinstance(shape[0], int) else shape
        count = math.prod(sizes)
        options: dict[str, Any] = {"dtype": dtype, "device": device, "pin_memory": pin_memory}
        store = torch.full((count + 2 * GUARD,), POISON.get(dtype, math.nan), **options)
        made.append((store, count))
        return store[GUARD : GUARD + count].view(sizes)

    def empty_like(tensor: Tensor) -> Tensor:
        return empty(*tensor.shape, dtype=tensor.dtype, device=tensor.device)

    with mock.patch.multiple(torch, empty=empty, empty_like=empty_like):
        yield
    for store, count in made:
        outside = torch.cat([store[:GUARD], store[GUARD + count :]])
        intact = outside.isnan() if store.is_floating_point() else outside == POISON[store.dtype]
        assert intact.all(), f"{int((~intact).sum())} elements outside an output were written"


def every_path(call: Callable[[On], Any]) -> list[Any]:
    """What `call(on)` returns on each of PATHS, brought home; `on` takes tensors to where the path has them. An op
    without native code takes the PyTorch path for it."""
    results = []
    for name in PATHS:
        with path(name) as on, guarded():
            results.append(home(call(on)))
    return results


def same(found: Tensor, expected: Tensor) -> bool:
    """Equal in dtype, shape and every bit (so -0.0 is not 0.0), where all NaN count as one."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if found.dtype in AS_BITS:
        bits = [t.detach().masked_fill(t.isnan(), math.nan).view(AS_BITS[t.dtype]) for t in (found, expected)]
        return torch.equal(*bits)
    return torch.equal(found, expected)


def pack_plain(mask: Tensor) -> Tensor:
    """Packed bits of a boolean matrix, by padding its rows to whole groups of 128."""
    rows, cols = mask.shape
    padded = np.zeros((rows, -(-cols // 128) * 128), dtype=bool)
    padded[:, :cols] = mask.numpy()
    return torch.from_numpy(np.packbits(padded, bitorder="little").view("<i4").reshape(rows, -1).copy())


def unpack_plain(words: Tensor, cols: int) -> Tensor:
    """Boolean matrix of packed bits."""
    bits = [(words >> bit) & 1 for bit in range(32)]
    return torch.stack(bits, dim=2).flatten(1)[:, :cols] == 1


def random_mask(rows: int, cols: int, density: float, seed: int) -> Tensor:
    return torch.rand(rows, cols, generator=torch.Generator().manual_seed(seed)) < density


def random_words(rows: int, cols: int, seed: int) -> Tensor:
    """Random int32 [rows, words], padding bits too."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**31), 2**31, (rows, 4 * -(-cols // 128)), generator=generator).int()


def random_reals(shape: tuple[int, ...], seed: int, special: float = 0.0) -> Tensor:
    """Normal float32, the fraction `special` of them replaced from SPECIAL, so that values tie, too."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    odd = torch.tensor(SPECIAL)[torch.randint(len(SPECIAL), shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < special, odd, values)
