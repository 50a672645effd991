"""State in integers, safe from those who average a network and take every buffer for numbers.

torch.optim.swa_utils.AveragedModel with use_buffers=True, and exponential averages like it, write
`decay * average + (1 - decay) * model` into every buffer: in float32, which has no room for 32 bits. The average of
bits that did not change is these bits; of bits that did there is none, and it is refused. Buffers that are copied, as
AveragedModel does without use_buffers, bring their checksum along.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

_ROUNDING = 2.0**-22  # of one such write, of the number written, and what truncation takes

_STEP, _MIX = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9  # odd, and with bits all over a word, as splitmix64's


class Known:
    """The integers of some edges, as they were last written by who knows that they are bits or counts.

    Args:
        never: a tensor that only those write who write everything.
        copied: keep copies, from which they are put right.
    """

    def __init__(self, never: Tensor, buffers: Mapping[str, Tensor | None], sums: Tensor, *, copied: bool) -> None:
        self.copied = copied
        self._never, self._version = never, version(never)
        self._held = {name: None if bits is None or not copied else bits.clone() for name, bits in buffers.items()}
        self._marks = _marks(buffers)
        sums.copy_(_checksums(buffers, sums))

    @property
    def writes(self) -> int:
        """How often everything was written since."""
        return version(self._never) - self._version

    def changed(self, buffers: Mapping[str, Tensor | None]) -> bool:
        """Whether one of them is another, or was written to."""
        return self._marks != _marks(buffers)

    def put_right(self, buffers: Mapping[str, Tensor | None], sums: Tensor, writes: int) -> str | None:
        """After so many writes of everything: which buffer holds neither what was copied nor what was there."""
        whole = (sums == _checksums(buffers, sums)).tolist()
        for (name, bits), copied in zip(buffers.items(), whole, strict=True):
            held = self._held.get(name)
            if copied or bits is None:
                continue
            if held is None or held.shape != bits.shape or not _near(bits, held, writes):
                return name
            bits.copy_(held)
        return None


def version(tensor: Tensor) -> int:
    """How often torch has counted a write into `tensor`."""
    return 0 if tensor.is_inference() else tensor._version


def _marks(buffers: Mapping[str, Tensor | None]) -> list[tuple[int, int]]:
    return [(id(bits), 0 if bits is None else version(bits)) for bits in buffers.values()]


def _near(bits: Tensor, held: Tensor, writes: int) -> bool:
    apart = (bits.double() - held.double()).abs()
    return bool((apart <= writes * (1 + _ROUNDING * held.double().abs())).all())


def _checksums(buffers: Mapping[str, Tensor | None], like: Tensor) -> Tensor:
    """Of each buffer a number that tells it from any other, int64."""
    return torch.stack(list(_each(buffers, like)))


def _each(buffers: Mapping[str, Tensor | None], like: Tensor) -> Iterator[Tensor]:
    for bits in buffers.values():
        if bits is None:
            yield like.new_zeros(())
            continue
        words = bits.flatten().long()
        mixed = (words + torch.arange(1, words.numel() + 1, device=words.device) * _STEP) * _MIX
        mixed = (mixed ^ (mixed >> 31)) * _MIX  # an average of sums is not the sum of an average
        yield mixed.sum()
