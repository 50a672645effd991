"""The published formats of small image sets: what is refused, and how missing files are fetched."""

import hashlib
import os
import re
import struct
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from supermask.data.base import DataMissing
from supermask.data.image_files import Source, read_cifar, read_idx, read_mnist, read_svhn, require


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}i", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(ValueError, match=rf"{file} has labels from 10 to 10, expected 0 to 9"):
        read_cifar([file], labels=[10])
    for coarse, fine in ((20, 0), (0, 100)):
        file.write_bytes(bytes([coarse, fine]) + bytes(3072))
        with pytest.raises(ValueError, match=re.escape(str(file))):
            read_cifar([file], labels=[20, 100])
    savemat(tmp_path / "a.mat", {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [11]])})
    with pytest.raises(ValueError, match="labels from 1 to 11"):
        read_svhn(tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, r"has the variables \['X'\]"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))}, "has X float64"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((3, 1))}, r"y float64 \(3, 1\)"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([["1"], ["2"]], object)}, r"y object \(2, 1\)"),
        ({"X": np.zeros((3, 32, 32, 2), np.uint8), "y": np.ones((2, 1))}, r"X uint8 \(3, 32, 32, 2\)"),
    ],
)
def test_other_matlab_files_are_refused(variables: dict[str, Any], says: str, tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", variables)
    with pytest.raises(ValueError, match=says):
        read_svhn(tmp_path / "a.mat")


def test_idx_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.write_bytes(idx(np.zeros((3, 28, 28))))
    labels.write_bytes(idx(np.zeros(4)))
    with pytest.raises(ValueError, match=r"holds \(3, 28, 28\) and .*labels \(4,\)"):
        read_mnist(images, labels)
    labels.write_bytes(idx(np.array([0, 10, 3])))
    with pytest.raises(ValueError, match="labels from 0 to 10"):
        read_mnist(images, labels)
    for content, says in (
        (b"\0\0\x0d\x01" + bytes(8), "no IDX file of bytes: it begins with 00 00 0d 01"),
        (b"\0\0\x08\x03" + bytes(8), "no IDX file"),
        (b"\0\0\x08\x00", "no IDX file"),
        (idx(np.zeros(5)) + b"\0", "holds 14 bytes, expected 13"),
        (struct.pack(">BBBB3i", 0, 0, 8, 3, 2**31 - 1, 2**31 - 1, 2**31 - 1), "holds 16 bytes, expected 9903520"),
        (struct.pack(">BBBBi", 0, 0, 8, 1, -1), "its shape"),
    ):
        labels.write_bytes(content)
        with pytest.raises(ValueError, match=says):
            read_idx(labels)


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *_arguments: object) -> None:
        pass


class TestFetching:
    """Files that are published by a server of this machine."""

    address: str

    @pytest.fixture(autouse=True)
    def server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            self.address = f"http://127.0.0.1:{server.server_address[1]}/"
            yield
            server.shutdown()

    @pytest.fixture
    def archive(self, tmp_path: Path) -> Source:
        published = tmp_path / "published"
        (published / "folder").mkdir(parents=True)
        for name in ("a.bin", "b.bin", "readme.html"):
            (published / "folder" / name).write_text(name)
        (published / "single.bin").write_bytes(bytes(1000))
        with tarfile.open(published / "set.tar.gz", "w:gz") as tar:
            tar.add(published / "folder", "folder")
        return self.source(published, "set.tar.gz", "folder/a.bin", "folder/b.bin")

    def source(self, published: Path, name: str, *files: str) -> Source:
        md5 = hashlib.md5((published / name).read_bytes()).hexdigest()
        urls = (f"{self.address}elsewhere/{name}", f"{self.address}published/{name}")
        return Source(urls=urls, md5=md5, files=files)

    def tree(self, root: Path) -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    def test_an_archive_is_fetched_from_the_place_that_has_it(self, archive: Source, tmp_path: Path) -> None:
        root = tmp_path / "data" / "set"
        require("Set", root, [archive], download=True)
        assert self.tree(root) == {"set.tar.gz", "folder/a.bin", "folder/b.bin"}
        assert (root / "folder" / "b.bin").read_text() == "b.bin"
        require("Set", root, [archive], download=False)

    def test_one_that_is_there_is_unpacked_and_whole_files_are_kept(self, archive: Source, tmp_path: Path) -> None:
        root = tmp_path / "set"
        (root / "folder").mkdir(parents=True)
        os.replace(tmp_path / "published" / "set.tar.gz", root / "set.tar.gz")
        with pytest.raises(DataMissing, match=r"folder/a\.bin is missing"):
            require("Set", root, [archive], download=False)
        require("Set", root, [archive], download=True)
        assert (root / "folder" / "a.bin").read_text() == "a.bin"

    def test_another_md5_is_refused_and_leaves_nothing(self, archive: Source, tmp_path: Path) -> None:
        root = tmp_path / "set"
        other = Source(urls=archive.urls, md5="0" * 32, files=archive.files)
        with pytest.raises(DataMissing, match=r"cannot fetch Set .*corrupted.*MD5 0000"):
            require("Set", root, [other], download=True)
        assert self.tree(root) == set()

    def test_a_damaged_archive_is_fetched_again(self, archive: Source, tmp_path: Path) -> None:
        root = tmp_path / "set"
        root.mkdir()
        (root / "set.tar.gz").write_bytes((tmp_path / "published" / "set.tar.gz").read_bytes()[:50])
        require("Set", root, [archive], download=True)
        assert (root / "folder" / "a.bin").read_text() == "a.bin"

    def test_a_file_that_is_read_as_it_comes(self, archive: Source, tmp_path: Path) -> None:
        source = self.source(tmp_path / "published", "single.bin")
        require("Set", tmp_path / "set", [source], download=True)
        assert self.tree(tmp_path / "set") == {"single.bin"}

    def test_nowhere_to_be_had(self, tmp_path: Path) -> None:
        source = Source(urls=(self.address + "nowhere/x.mat",), md5="0" * 32)
        with pytest.raises(DataMissing, match=r"cannot fetch Set .*nowhere/x\.mat.*by other means") as missing:
            require("Set", tmp_path / "set", [source], download=True)
        assert len(str(missing.value).splitlines()) == 1

    def test_a_folder_that_cannot_be_written(self, archive: Source) -> None:
        with pytest.raises(DataMissing, match="cannot fetch Set into /proc/set"):
            require("Set", Path("/proc/set"), [archive], download=True)
