"""Checkpoints: written whole or not at all, recognised when damaged, kept to the last few.

A file is what torch.save wrote, then the 32 bytes of its SHA-256. It is written under another name, synced and renamed,
so that a name that ends in .pt is always a finished file; the digest finds what a disk did to it afterwards.
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from supermask.checks import SupermaskError
from supermask.files import UnsyncedError, write_whole

_DIGEST = 32


class CheckpointError(SupermaskError):
    """A checkpoint that cannot be written or may be lost, or cannot be read; the message names the file and what is
    wrong."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they are; made when the first is written.
        keep: how many of the newest stay, at least one.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep}: expected at least one checkpoint")
        self.folder = Path(folder)
        self.keep = keep

    def paths(self) -> list[Path]:
        """The finished checkpoints, oldest first."""
        return sorted(self.folder.glob("*.pt"))

    def save(self, state: Mapping[str, Any]) -> Path:
        """Write `state` (tensors, numbers, strings, lists and dictionaries) as the newest one.

        Raises:
            CheckpointError: it could not be written, or is and a power cut may lose it; those before it are untouched.
        """
        held = io.BytesIO()
        torch.save(dict(state), held)
        payload = held.getbuffer()
        before = self.paths()
        number = int(before[-1].stem) + 1 if before else 1
        path = self.folder / f"{number:08}.pt"
        stands = f"{before[-1]} stands" if before else "there is none before it"
        try:
            self.folder.mkdir(exist_ok=True)
            write_whole(path, payload, hashlib.sha256(payload).digest())
        except UnsyncedError as error:
            raise CheckpointError(f"checkpoint {path} is {error.strerror}; {stands}") from error
        except OSError as error:
            raise CheckpointError(f"checkpoint {path} could not be written ({error.strerror}); {stands}") from error
        for old in before[: len(before) + 1 - self.keep]:
            old.unlink(missing_ok=True)
        return path

    def newest(self, report: Callable[[str], object]) -> bytes | None:
        """The newest checkpoint that is whole, for `read`; damaged ones are reported and put aside."""
        for path in reversed(self.paths()):
            wrong = "its digest does not match"
            try:
                data = path.read_bytes()
            except OSError as error:
                data, wrong = b"", str(error.strerror)
            payload, digest = data[:-_DIGEST], data[-_DIGEST:]
            if len(data) > _DIGEST and hashlib.sha256(payload).digest() == digest:
                return payload
            report(f"checkpoint {path} is damaged ({wrong}): it is put aside, and the one before it used")
            path.rename(path.with_suffix(".damaged"))
        return None


def read(payload: bytes) -> dict[str, Any]:
    """The state of a checkpoint, on CPU; nothing but tensors and plain values is ever built from it."""
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return state
