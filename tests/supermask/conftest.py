"""A disk that fails at one moment."""

import errno
import os

import pytest


@pytest.fixture
def unsynced_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files can be synced, and folders cannot, as on a disk that breaks after a file has its name."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
