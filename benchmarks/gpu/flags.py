"""What of PyTorch's own settings a comparison depends on: as they must be for checks, and as they are for timing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["as_they_are", "cudnn_tries", "exact_products", "held_exact", "whole_float32"]

Place = tuple[Any, str]


def _tf32() -> tuple[Place, ...]:
    return (torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")


def _reductions() -> tuple[Place, ...]:
    matmul = torch.backends.cuda.matmul
    return tuple((matmul, f"allow_{dtype}_reduced_precision_reduction") for dtype in ("bf16", "fp16"))


def exact_products() -> None:
    """PyTorch's own products on a GPU, by which ours are measured, shall err as little as they can, and be the same at
    each call."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    for place, name in (*_tf32(), *_reductions()):
        setattr(place, name, False)


@contextmanager
def held_exact() -> Iterator[None]:
    """`exact_products` within the block."""
    places = (*_tf32(), *_reductions(), (torch.backends.cudnn, "deterministic"), (torch.backends.cudnn, "benchmark"))
    with _kept(places):
        exact_products()
        yield


@contextmanager
def whole_float32() -> Iterator[None]:
    """Float32 products of PyTorch keep full precision, as those of the kernels do."""
    with _kept(_tf32()):
        for place, name in _tf32():
            setattr(place, name, False)
        yield


@contextmanager
def cudnn_tries() -> Iterator[None]:
    """The library's best: cuDNN times its ways, and takes the fastest."""
    with _kept(((torch.backends.cudnn, "benchmark"),)):
        torch.backends.cudnn.benchmark = True
        yield


def as_they_are() -> dict[str, Any]:
    """For the record."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return {
        "TF32, matmul": matmul.allow_tf32,
        "TF32, cuDNN": cudnn.allow_tf32,
        "reduced reductions, bf16": matmul.allow_bf16_reduced_precision_reduction,
        "reduced reductions, fp16": matmul.allow_fp16_reduced_precision_reduction,
        "cuDNN deterministic": cudnn.deterministic,
        "cuDNN benchmark": cudnn.benchmark,
    }


@contextmanager
def _kept(places: tuple[Place, ...]) -> Iterator[None]:
    """As it was before, afterwards."""
    before = [getattr(place, name) for place, name in places]
    try:
        yield
    finally:
        for (place, name), value in zip(places, before, strict=True):
            setattr(place, name, value)
