"""Images of every mode as 8-bit RGB: what has more bits is scaled, or refused by name."""

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from supermask.data.base import DataDamaged, Part
from supermask.data.image_folder import ImageFolder
from supermask.data.rgb import read_rgb

RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def png(samples: npt.NDArray[np.uint16], colour_type: int) -> bytes:
    """A PNG of 16 bits a sample, which Pillow writes of greyscale alone."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    image = read_rgb(str(path))
    assert image.mode == "RGB"
    return np.asarray(image)


def write_ramp(path: Path) -> None:
    """Greyscale of 16 bits, as the name's suffix has it."""
    if path.suffix == ".pgm":
        path.write_bytes(b"P5 256 256 65535\n" + RAMP.astype(">u2").tobytes())
    elif path.name == "big.tif":
        Image.frombytes("I;16B", (256, 256), RAMP.astype(">u2").tobytes()).save(path)
    else:
        Image.fromarray(RAMP).save(path)


@pytest.mark.parametrize("name", ["ramp.png", "ramp.tif", "big.tif", "ramp.pgm"])
def test_16_bits_of_grey_are_divided_by_257(name: str, tmp_path: Path) -> None:
    write_ramp(tmp_path / name)
    found = pixels(tmp_path / name)
    expected = np.round(RAMP / 257).astype(np.uint8)
    assert np.array_equal(found, expected[..., None].repeat(3, axis=2))
    assert found.mean() == pytest.approx(127.5)


def test_10_bits_of_grey_are_their_share_of_white(tmp_path: Path) -> None:
    values = (RAMP % 1024).astype(np.uint16)
    (tmp_path / "a.pgm").write_bytes(b"P5 256 256 1023\n" + values.astype(">u2").tobytes())
    assert np.abs(pixels(tmp_path / "a.pgm")[..., 0] - values / 1023 * 255).max() <= 1


@pytest.mark.parametrize(("colour_type", "samples"), [(2, 3), (4, 2), (6, 4)])
def test_16_bits_a_channel_are_right_to_one_of_256(colour_type: int, samples: int, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(RAMP[..., None].repeat(samples, axis=2), colour_type))
    assert np.abs(pixels(tmp_path / "a.png") - RAMP[..., None] / 257).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr"])
def test_8_bits_are_as_pillow_converts_them(mode: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    image = Image.fromarray(noise, "RGBA")
    image = (image if mode == "RGBA" else image.convert("LA" if mode == "PA" else "RGB")).convert(mode)
    path = tmp_path / ("a.jpeg" if mode == "YCbCr" else "a.tif")
    image.save(path)
    with Image.open(path) as again:
        assert np.array_equal(pixels(path), np.asarray(again.convert("RGB")))


def unknown(path: Path, kind: str) -> None:
    """An image whose white the file does not name."""
    if kind == "integers":
        Image.fromarray(RAMP.astype(np.int32)).save(path)
    elif kind == "floats":
        Image.fromarray(RAMP.astype(np.float32)).save(path)
    else:
        image = Image.fromarray(RAMP)
        image.save(path, tiffinfo={262: 0})  # white is zero


@pytest.mark.parametrize(("kind", "mode"), [("integers", "I"), ("floats", "F"), ("white is zero", "I;16")])
def test_what_has_no_known_range_is_refused_by_name(kind: str, mode: str, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        unknown(tmp_path / part / "a" / "0.tif", kind)
    loaded = ImageFolder(root=tmp_path, batch=1, workers=0).open(seed=0, device=torch.device("cpu"))
    for batches in (loaded.train, loaded.test, loaded.calibrate):
        with pytest.raises(DataDamaged, match=rf"0\.tif: its pixels are of mode {mode} \(TIFF\), .*; replace it"):
            next(batches(Part()))


def test_the_folder_gives_what_the_file_has(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        write_ramp(tmp_path / part / "a" / "0.png")
    loaded = ImageFolder(root=tmp_path, batch=1, size=256, workers=0).open(seed=0, device=torch.device("cpu"))
    ((inputs, _),) = loaded.test(Part())
    mean = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert (inputs.mean((0, 2, 3)) * mean[1] + mean[0]).tolist() == pytest.approx([0.5] * 3, abs=0.01)
