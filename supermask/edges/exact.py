"""State in integers, safe from those who average a network and take every buffer for numbers.

torch.optim.swa_utils.AveragedModel with use_buffers=True, and exponential averages like it, write
`decay * average + (1 - decay) * model` into every buffer: in float32, which has no room for 32 bits. The average of
bits that did not change is these bits; of bits that did there is none, and it is refused. What tells the two apart are
checksums, which travel with the bits: those of other bits are other numbers altogether.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_ROUNDING = 2.0**-22  # of one such write, beside the number that is written
_MOST_WRITES = 4096  # whose rounding adds up; an average forgets older ones
_STEP, _MIX = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9  # odd, and with bits all over a word, as splitmix64's

Buffers = Mapping[str, Tensor | None]


class Known:
    """The integers of some edges, as they were last written by who knows that they are bits or counts.

    Args:
        source: written by those alone who write everything.
        constant: likewise, or by hand.
        copied: keep copies, from which they are put right.
    """

    def __init__(self, source: Tensor, constant: Tensor, buffers: Buffers, sums: Tensor, *, copied: bool) -> None:
        self.copied, self.sums = copied, sums
        self._source, self._constant = (source, version(source)), (constant, version(constant))
        self._held = {name: None if bits is None or not copied else bits.clone() for name, bits in buffers.items()}
        self._marks = _marks(buffers.values())

    def writes(self, buffers: Buffers) -> int:
        """How often everything was written since; there are those who leave int64 out, and write the rest."""
        source, constant = (version(tensor) - before for tensor, before in (self._source, self._constant))
        return source or (constant if self.changed(buffers) else 0)

    def changed(self, buffers: Buffers) -> bool:
        """Whether one of them is another, or was written to."""
        return self._marks != _marks(buffers.values())

    def wrong(self, buffers: Buffers, found: Tensor, writes: int) -> list[str]:
        """Buffers that are not those of the checksums `found` beside them, after so many writes: averages."""
        own = checksums(buffers.values(), found.device)
        names = list(buffers)
        odd = [i for i, (a, b) in enumerate(zip(own.tolist(), found.tolist(), strict=True)) if a != b]
        return [names[i] for i in odd]

    def put_right(self, buffers: Buffers, found: Tensor, writes: int) -> str | None:
        """Have averages of what did not change be that again; the first buffer that has no average."""
        odd = self.wrong(buffers, found, writes)
        same = self.unchanged(found, writes)
        for number, (name, bits) in enumerate(buffers.items()):
            if name not in odd:
                continue
            held = self._held.get(name)
            if bits is None or held is None or held.shape != bits.shape or not same[number]:
                return name
            bits.copy_(held)
        return None

    def unchanged(self, found: Tensor, writes: int = 1) -> list[bool]:
        """Of each buffer, whether the checksum `found` is the known one, or an average of it with itself."""
        known, far = self.sums.double(), (found.to(self.sums.device).double() - self.sums.double()).abs()
        return (far <= min(writes, _MOST_WRITES) * _ROUNDING * known.abs()).tolist()


def version(tensor: Tensor) -> int:
    """How often torch has counted a write into `tensor`."""
    return 0 if tensor.is_inference() else tensor._version


def checksums(buffers: Iterable[Tensor | None], device: torch.device) -> Tensor:
    """Of each buffer a number that tells it from others, int64; an average of such numbers is that of no average."""
    found = []
    for bits in buffers:
        words = torch.zeros(0, dtype=torch.int64, device=device) if bits is None else bits.flatten().long()
        mixed = (words + torch.arange(1, words.numel() + 1, device=words.device) * _STEP) * _MIX
        found.append(((mixed ^ (mixed >> 31)) * _MIX).sum().to(device))
    return torch.stack(found) if found else torch.zeros(0, dtype=torch.int64, device=device)


def _marks(buffers: Iterable[Tensor | None]) -> list[tuple[int, int]]:
    return [(id(bits), 0 if bits is None else version(bits)) for bits in buffers]
