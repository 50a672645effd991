"""What edges are made from as one tensor, so that it travels with a state dict, which is of those edges only."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base.philox import as_int64

Value = int | float | str

# State dicts hold these numbers: a name is added at the end with the next one, and none changes or goes.
CODES: Mapping[str, int] = {
    "signed_constant": 0,
    "scaled_signed_constant": 1,
    "unsigned_constant": 2,
    "kaiming_normal": 3,
    "kaiming_uniform": 4,
    "abs": 5,
    "raw": 6,
}
_NAMES = {code: name for name, code in CODES.items()}


def encode(values: Iterable[Value], device: torch.device) -> Tensor:
    """An identity as int64: integers of up to 64 bits as they are, float32 by its bits, names by `CODES`, and those
    that are not there, of rules that a method brings, by a digest."""
    return torch.tensor([_code(value) for value in values], dtype=torch.int64, device=device)


def decode(codes: Iterable[int], like: Iterable[Value]) -> tuple[Value, ...]:
    """The inverse, for entries of the kinds that `like` has; of a code without a name, the code."""
    return tuple(_decode(code, value) for code, value in zip(codes, like, strict=False))


def _code(value: Value) -> int:
    if isinstance(value, str):
        return CODES[value] if value in CODES else -int.from_bytes(blake2b(value.encode(), digest_size=7).digest())
    return as_int64(value) if isinstance(value, int) else int(np.float32(value).view(np.int32))


def _decode(code: int, like: Value) -> Value:
    if isinstance(like, str):
        return _NAMES.get(code, code)
    return code % (1 << 64) if isinstance(like, int) else float(np.int32(code).view(np.float32))
