"""What is done to a whole batch of images at once, on whatever device it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """A crop, as large as the image, of the image with `pad` black pixels on each side; then maybe a mirror image.

    All images of a batch are cropped in one gather of pixels.
    """

    pad: int = 4
    flip: bool = True

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Top and left edge of the crop, and 1 for a mirror image: int64 [count, 3]."""
        offsets = torch.randint(2 * self.pad + 1, (count, 2), generator=generator)
        mirrored = torch.randint(2, (count, 1), generator=generator)
        return torch.cat([offsets, mirrored if self.flip else torch.zeros_like(mirrored)], dim=1)

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Images [count, channels, height, width] of any dtype, cropped and mirrored; the result is channels-last."""
        count, channels, height, width = images.shape
        top, left, mirrored = drawn.view(count, 3, 1).unbind(1)
        padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, self.pad, self.pad, self.pad, self.pad))
        down, across = (torch.arange(size, device=images.device) for size in (height, width))
        rows = top + down
        columns = left + torch.where(mirrored > 0, width - 1 - across, across)
        first = torch.arange(count, device=images.device) * (height + 2 * self.pad)
        pixels = ((first[:, None] + rows) * (width + 2 * self.pad))[:, :, None] + columns[:, None, :]
        cropped = padded.reshape(-1, channels).index_select(0, pixels.view(-1))
        return cropped.view(count, height, width, channels).permute(0, 3, 1, 2)


def normalised(mean: Sequence[float], std: Sequence[float], device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function of uint8 images [count, channels, height, width]: (pixel / 255 - mean) / std, float32, channels-last.

    It is evaluated as (pixel - 255 mean) / (255 std).
    """
    scaled = 255 * torch.tensor([mean, std], device=device)

    def normalise(images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        # A row of pixels at a time, its channels side by side: a loop of three values would cost six times as much.
        rows = images.permute(0, 2, 3, 1).reshape(count * height, width * channels)
        shift, scale = scaled.repeat(1, width).unbind()
        whole = rows.to(torch.float32).sub_(shift).div_(scale)
        return whole.view(count, height, width, channels).permute(0, 3, 1, 2)

    return normalise
