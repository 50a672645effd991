"""An image file as RGB of 8 bits a channel, whatever depth it has."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_DEEP = ("I", "F")  # modes of more than 8 bits are these, or begin with I;
_BITS, _WHITE_IS_ZERO = 258, 262  # tags of TIFF


def read_rgb(path: str) -> "Image":
    """The image, by Pillow's own conversion; greyscale of 16 bits is divided by 257, where Pillow would clip at 255.

    Raises:
        ValueError: pixels whose range the file does not say.
        Exception: whatever a decoder stumbles over.
    """
    from PIL import Image

    with open(path, "rb") as file:
        image = Image.open(file)
        if image.mode in _DEEP or image.mode.startswith("I;"):
            return _from_16_bits(image)
        return image.convert("RGB")


def _from_16_bits(image: "Image") -> "Image":
    """Greyscale of 65,536 levels, each as its share of white."""
    from PIL import Image

    if not _has_16_bits(image):
        raise ValueError(
            f"its pixels are of mode {image.mode} ({image.format}), and how much of that is white the file does not "
            "say: save it with 8 or 16 bits a channel, as PNG"
        )
    levels = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")


def _has_16_bits(image: "Image") -> bool:
    """Whether 0 is black and 65,535 white."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        return image.mode.startswith("I;16") and tags.get(_BITS) == (16,) and tags.get(_WHITE_IS_ZERO) == 1
    # Pillow widens what a PGM file says to 16 bits; of PNG it has I only from these, and in its older releases.
    return image.mode != "F" and image.format in ("PNG", "PPM")
