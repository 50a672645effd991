"""The C extension against the PyTorch path, on layers of many chunks, with any number of threads.

Small shapes and odd values are the property tests' of each op, which take every path (tests/kernels/paths.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.paths import guarded, path, random_reals

COUNTS = st.sampled_from([1, 2, 5])  # of threads
# Less than a chunk of 16,384 edges; several; rows longer than one; more edges than have room for all their keys.
SHAPES = [(1, 1), (130, 257), (3, 20_000), (1, 50_001), (90, 1_000), (700, 129), (64, 64, 3, 3)]


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_both(call: Any, count: int = 1) -> tuple[Any, Any]:
    """What `call` gives through the extension, on `count` threads, and what without it."""
    with path("torch"):
        expected = call()
    with path("native"), guarded(), threads(count):
        return call(), expected


def scores_like(shape: tuple[int, ...], kind: str, data: int) -> Tensor:
    scores = random_reals(shape, data)
    flat = scores.view(-1)
    if kind == "special":
        return random_reals(shape, data, special=0.2)
    if kind == "equal":
        return torch.full(shape, -0.25)
    if kind == "few values":
        return (scores * 2).round() / 2
    if kind == "two halves":  # a sample of the one says nothing of the other
        flat[: flat.numel() // 2] *= 1e-6
    if kind == "periodic":  # and every stride has its period
        flat.copy_(torch.arange(flat.numel()).remainder(7).float())
    return scores


KINDS = st.sampled_from(["normal", "special", "equal", "few values", "two halves", "periodic"])
