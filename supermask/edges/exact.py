"""State in integers, safe from those who average a network and take every buffer for numbers.

torch.optim.swa_utils.AveragedModel with use_buffers=True, and exponential averages like it, write
`decay * average + (1 - decay) * model` into every buffer: in float32, which has no room for 32 bits. The average of
bits that did not change is these bits; of bits that did there is none, and it is refused. What tells the two apart is a
checksum, which travels with the bits: that of other bits is another number altogether.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_ROUNDING = 2.0**-22  # of one such write, beside the number that is written
_MOST_WRITES = 4096  # whose rounding adds up; an average forgets older ones
_STEP, _MIX = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9  # odd, and with bits all over a word, as splitmix64's
_LOW = (1 << 61) - 1

Buffers = Mapping[str, Tensor | None]


class Known:
    """The integers of some edges, as they were last written by who knows that they are bits or counts.

    Args:
        source: written by those alone who write everything.
        constant: likewise, or by hand.
        total: their checksum.
        copied: keep copies, from which they are put right.
    """

    def __init__(self, source: Tensor, constant: Tensor, buffers: Buffers, total: Tensor, *, copied: bool) -> None:
        self.copied, self._total = copied, total
        self._source, self._constant = (source, version(source)), (constant, version(constant))
        self._held = {name: None if bits is None or not copied else bits.clone() for name, bits in buffers.items()}
        self._marks = _marks(buffers)

    @property
    def touched(self) -> bool:
        """Whether something was written since that nobody writes alone: a quick look."""
        return any(version(tensor) != before for tensor, before in (self._source, self._constant))

    def writes(self, buffers: Buffers) -> int:
        """How often everything was written since; there are those who leave int64 out, and write the rest."""
        source, constant = (version(tensor) - before for tensor, before in (self._source, self._constant))
        return source or (constant if self.changed(buffers) else 0)

    def changed(self, buffers: Buffers) -> bool:
        """Whether one of them is another, or was written to."""
        both = zip(self._marks, _marks(buffers), strict=True)
        return not all(before is now and writes == counted for (before, writes), (now, counted) in both)

    def put_right(self, buffers: Buffers, found: Tensor, writes: int) -> str | None:
        """Have averages of what did not change be that again; a buffer that has no average.

        Args:
            found: the checksum beside them.
            writes: of everything, since they were known.
        """
        if torch.equal(found, checksum(buffers, found.device)):
            return None
        pairs = {name: (bits, self._held[name]) for name, bits in buffers.items()}
        differ = [name for name, (bits, held) in pairs.items() if not _same(bits, held)]
        fit = all(bits is None or (held is not None and held.shape == bits.shape) for bits, held in pairs.values())
        if not fit or not self.unchanged(found, writes):
            return differ[0] if differ else next(iter(buffers))
        for bits, held in pairs.values():
            if bits is not None and held is not None:
                bits.copy_(held)
        return None

    def unchanged(self, found: Tensor, writes: int = 1) -> bool:
        """Whether the checksum `found` is the known one, or an average of it with itself."""
        known, other = int(self._total), int(found)
        return abs(other - known) <= min(writes, _MOST_WRITES) * _ROUNDING * known


def version(tensor: Tensor) -> int:
    """How often torch has counted a write into `tensor`."""
    return 0 if tensor.is_inference() else tensor._version


def checksum(buffers: Buffers, device: torch.device) -> Tensor:
    """A number that tells these bits from others, int64 [1], odd and from 2^61 to 2^62: one that was rounded to float64
    is even."""
    parts = [(number, bits) for number, bits in enumerate(buffers.values()) if bits is not None]
    if all(type(bits) is Tensor and bits.device.type == "cpu" for _, bits in parts):
        total = torch.tensor([sum(_digest(bits, number) for number, bits in parts) & _LOW], device=device)
    else:
        total = torch.zeros(1, dtype=torch.int64, device=device)
        for number, bits in parts:
            words = bits.flatten().long()
            mixed = (words + torch.arange(1, words.numel() + 1, device=words.device) * _STEP + number) * _MIX
            total += ((mixed ^ (mixed >> 31)) * _MIX).sum().to(device)
    return (total & _LOW) | (1 << 61 | 1)


def _digest(bits: Tensor, number: int) -> int:
    """The same sum, in one thread: tensors of this size are over before others have begun."""
    words = bits.detach().numpy().reshape(-1).astype(np.int64)
    mixed = np.arange(1, len(words) + 1)
    mixed *= _STEP
    mixed += words
    mixed += number
    mixed *= _MIX
    mixed ^= mixed >> 31
    return int(mixed.sum()) * _MIX


def _marks(buffers: Buffers) -> list[tuple[Tensor | None, int]]:
    return [(bits, 0 if bits is None else version(bits)) for bits in buffers.values()]


def _same(one: Tensor | None, two: Tensor | None) -> bool:
    return one is two or (one is not None and two is not None and torch.equal(one, two))
