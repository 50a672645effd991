"""The files of small public image sets: fetching them, and reading their binary formats with numpy.

No format that can carry code (pickle) is read.
"""

import fcntl
import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from supermask.data.base import DataMissing

Images = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""Pixels [images, channels, height, width] and labels [images]."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that is published, and what a data set needs of it.

    Attributes:
        urls: where it is; the first that answers is taken.
        md5: of the published file.
        files: what it unpacks to, below the set's folder; none where the file itself is read.
    """

    urls: tuple[str, ...]
    md5: str
    files: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The published file's own name."""
        return self.urls[0].rsplit("/", 1)[-1]

    def missing(self, root: Path) -> str | None:
        """The first needed file that is not below `root`; a .gz file may also be there unpacked."""
        for file in self.files or (self.name,):
            if not (root / file).is_file() and not (root / file.removesuffix(".gz")).is_file():
                return file
        return None


def require(title: str, root: Path, sources: Sequence[Source], *, download: bool) -> None:
    """See that a data set's files are below `root`, and fetch those that are not where `download` says so.

    Processes that share `root` fetch one at a time. A file of the published name that is there already is unpacked
    instead of fetched again if its MD5 is right.

    Raises:
        DataMissing: a file is not there, or cannot be fetched.
    """
    for source in sources:
        file = source.missing(root)
        if file and not download:
            where = f"{source.urls[0]} (MD5 {source.md5})"
            raise DataMissing(
                f"No {title} in {root}: {root / file} is missing; fetch it with --data.download, or download {where} "
                f"and {'unpack it' if source.files else 'put it'} there, or name another folder with --data.root."
            )
        if file:
            _fetch(title, root, source)


def _fetch(title: str, root: Path, source: Source) -> None:
    """Put the source's files below `root`, each whole or not at all."""
    from torchvision.datasets.utils import check_integrity, extract_archive

    kept = root / source.name
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root), TemporaryDirectory(dir=root, prefix=".fetching-") as scratch:
            if not source.missing(root):
                return
            if not check_integrity(kept, source.md5):
                os.replace(_download(source, scratch), kept)
            if source.files:
                extract_archive(kept, scratch)
            for file in source.files:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(scratch) / file, root / file)
    except (OSError, RuntimeError) as error:
        raise DataMissing(
            f"cannot fetch {title} into {root}: {error}; download {source.urls[0]} (MD5 {source.md5}) by other means, "
            f"put it there as {kept}, and run this again with --data.download"
        ) from error


def _download(source: Source, folder: str) -> Path:
    """The published file in `folder`, from the first place that gives it."""
    from torchvision.datasets.utils import download_url

    errors = []
    for url in source.urls:
        try:
            download_url(url, folder, source.name, source.md5)
        except (OSError, RuntimeError) as error:
            errors.append(f"{url}: {error}")
        else:
            return Path(folder) / source.name
    raise OSError("; ".join(errors))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is in this block for `folder`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_cifar(paths: Sequence[Path], *, labels: Sequence[int]) -> Images:
    """CIFAR's binary version: records of one byte a label and 3 x 32 x 32 bytes of pixels, channel by channel.

    Args:
        paths: the files, one after the other.
        labels: how many classes each of a record's labels has; the last one is returned.

    Raises:
        ValueError: a file that is not a whole number of records, or has a label out of range.
    """
    record = len(labels) + 3 * 32 * 32
    parts = []
    for path in paths:
        size = path.stat().st_size
        if not size or size % record:
            raise ValueError(
                f"{path} has {size} bytes, expected a whole number of records of {record} bytes: it is damaged; "
                "delete it and fetch it again"
            )
        part = np.fromfile(path, dtype=np.uint8).reshape(-1, record)
        for column, classes in enumerate(labels):
            _check_labels(path, part[:, column], classes)
        parts.append(part)
    records = np.concatenate(parts)
    pixels = records[:, len(labels) :].reshape(-1, 3, 32, 32)
    return pixels, records[:, len(labels) - 1].astype(np.int64)


def read_svhn(path: Path) -> Images:
    """SVHN's cropped digits, a MATLAB 5 file with X uint8 [32, 32, 3, images] and y [images, 1], in which 10 means 0.

    Raises:
        ValueError: the file cannot be read, or holds something else.
    """
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(path)
    except Exception as error:  # scipy raises what it happens to stumble over in a damaged file
        raise _damaged(path, f"cannot be read as a MATLAB file ({type(error).__name__}: {error})") from error
    pixels, labels = content.get("X"), content.get("y")
    if pixels is None or labels is None:
        raise _damaged(path, f"has the variables {sorted(set(content) - {'__header__', '__version__', '__globals__'})}")
    if pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, labels.size) or labels.dtype.kind not in "uif":
        raise _damaged(path, f"has X {pixels.dtype} {pixels.shape} and y {labels.dtype} {labels.shape}")
    labels = labels.astype(np.int64).reshape(-1)
    _check_labels(path, labels, 11)
    return pixels.transpose(3, 2, 0, 1), labels % 10


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(
        f"{path} ({path.stat().st_size} bytes) {what}, expected X uint8 (32, 32, 3, images) and y (images, 1): "
        "delete it and fetch it again"
    )


def read_mnist(images: Path, labels: Path) -> Images:
    """MNIST's two IDX files, each with .gz or without; pixels [images, 1, 28, 28].

    Raises:
        ValueError: a file is damaged, or the two do not belong together.
    """
    pixels, numbers = read_idx(images), read_idx(labels)
    if pixels.shape[1:] != (28, 28) or numbers.ndim != 1 or len(pixels) != len(numbers):
        raise ValueError(
            f"{images} holds {pixels.shape} and {labels} {numbers.shape}: expected (images, 28, 28) and (images,)"
        )
    _check_labels(labels, numbers, 10)
    return pixels[:, None], numbers.astype(np.int64)


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """An IDX file of bytes: 0, 0, 8, the number of dimensions, each of them as a big-endian int32, then the data.

    Args:
        path: the file; if it is not there, the same name without .gz.

    Raises:
        ValueError: the file is not IDX, or shorter or longer than its header says.
    """
    path = path if path.is_file() else path.with_suffix("")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) cannot be unpacked: {error}; delete it and fetch it again"
        ) from error
    dimensions = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    header = 4 + 4 * dimensions
    if not dimensions or len(content) < header:
        raise ValueError(f"{path} is no IDX file of bytes: it begins with {content[:16].hex(' ') or 'nothing'}")
    shape = np.frombuffer(content, dtype=">i4", count=dimensions, offset=4).tolist()
    expected = header + int(np.prod(shape, dtype=object))
    if min(shape) < 1 or len(content) != expected:
        raise ValueError(
            f"{path} holds {len(content)} bytes, expected {expected} for its shape {shape}: it is damaged; delete it "
            "and fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def _check_labels(path: Path, labels: npt.NDArray[Any], classes: int) -> None:
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"{path} has labels from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}: it is damaged or "
            "holds another data set"
        )
