"""The reader of docs/ refuses what is no whole ticket, and says why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests.docs.reading import OLDER, reader
from tests.supermask.tickets.crafted import Change, craft, field, parts_of


def layer(name: str, value: Any) -> Change:
    def change(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        header["layers"][2][name] = value

    return change


def kept(more: int) -> Change:
    def change(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        header["layers"][2]["planes"]["mask"]["kept"] += more

    return change


def plane(change_of: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        tensors["fc1.mask"] = change_of(tensors["fc1.mask"])

    return change


LIES: dict[str, tuple[Change, str]] = {
    "version 0": (field("version", 0), "version 0"),
    "version 4": (field("version", 4), "version 4"),
    "no version": (lambda header, _: header.pop("version"), "version None"),
    "weights": (layer("weights", "binomial"), "fc1: unknown weights binomial"),
    "more kept": (kept(1), "fc1: .* bits are set, kept is"),
    "fewer kept": (kept(-1), "fc1: .* bits are set, kept is"),
    "raw": (layer("planes", {"mask": {"kept": 614, "encoding": "raw"}}), "fc1: a raw plane of .* bytes for 2048 bits"),
    "no mask": (layer("planes", {}), r"fc1: planes \[\], and mask, mask.1, ... and flips are known"),
    "another plane": (layer("planes", {"mask": {}, "frozen": {}}), r"fc1: planes \['frozen', 'mask'\], and mask"),
    "another value": (layer("values", {"alpha": {}}), r"fc1: values \['alpha'\], and constant is known"),
    "another coding": (layer("values", {"constant": {"coding": "i8", "value": 1}}), "fc1: coding 'i8', and float32 is"),
    "other shape": (layer("shape", [16, 127]), "not used up|bits are set"),
    "no codes": (plane(lambda data: data[:0]), "fc1: 0 bits are set"),
    "more coded": (plane(lambda data: np.append(data, np.arange(1, 9, dtype=np.uint8))), "not used up"),
}


@pytest.mark.parametrize("case", LIES)
def test_lies_with_a_right_digest(case: str, good: Path, tmp_path: Path) -> None:
    change, part = LIES[case]
    header, tensors = parts_of(good)
    change(header, tensors)
    with pytest.raises(ValueError, match=part):
        reader.read(craft(tmp_path / "bad", header, tensors))


@pytest.mark.parametrize("path", [Path("good"), *OLDER], ids=lambda path: path.stem)
def test_a_flipped_bit_anywhere_in_the_data(path: Path, good: Path, tmp_path: Path) -> None:
    content = (good.parent / path).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for position in range(start, len(content), 7):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        (tmp_path / "bad").write_bytes(flipped)
        with pytest.raises(ValueError, match=r"bad: sha256 [0-9a-f]{64}, not [0-9a-f]{64}"):
            reader.read(tmp_path / "bad")


def test_digest_of_the_header(good: Path, tmp_path: Path) -> None:
    header, tensors = parts_of(good)
    for name, value in (("seed", 6), ("narrowed", True), ("architecture", None), ("sha256", "0" * 64)):
        text = json.dumps(header | {name: value}, sort_keys=True, separators=(",", ":"))
        safetensors.numpy.save_file(tensors, tmp_path / "bad", {"supermask": text})
        with pytest.raises(ValueError, match="bad: sha256"):
            reader.read(tmp_path / "bad")


def test_sizes_that_disagree_with_shapes(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    assert content.count(b'"shape":[16]') == 2
    (tmp_path / "bad").write_bytes(content.replace(b'"shape":[16]', b'"shape":[61]'))
    with pytest.raises(ValueError, match=r"bad: fc_norm1\.running_mean has 16 elements, not \[61\]"):
        reader.read(tmp_path / "bad")


def test_truncated_files_and_others(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    for data in (b"", content[:7], content[:100], content[:-1], content[: len(content) // 2], bytes(200), b"\xff" * 50):
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(ValueError, match=r"elements|Expecting|Unterminated|decode"):
            reader.read(tmp_path / "bad")
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "bad", {"format": "np"})
    with pytest.raises(ValueError, match="version None"):
        reader.read(tmp_path / "bad")
