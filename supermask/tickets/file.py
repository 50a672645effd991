"""The ticket file: planes of bits, a seed, and what else a network needs, checked before anything is made of them.

A ticket is one safetensors file (docs/ticket-format.md): for every masked layer the planes of its bits, each raw or
entropy-coded (supermask/tickets/coding/planes.py), every other tensor by its state-dict name, and the header as
metadata. Layers are read one at a time, so that a network of packed bits is made in little more memory than it takes.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from supermask.files import Found, UnsyncedError, write_atomically
from supermask.kernels.base.bits import count_bits
from supermask.networks.architecture import Architecture
from supermask.tickets.coding.fit import Plane, find_draws, fit
from supermask.tickets.coding.levels import Draws
from supermask.tickets.coding.planes import CodeError, Encoding, decode, encode_ans, encode_raw
from supermask.tickets.container import DTYPE_NAMES, Container, opened, target_name
from supermask.tickets.errors import TicketError
from supermask.tickets.header import METADATA, canonical, header_of, most_bits, parse
from supermask.tickets.info import Layer, LayerInfo, PlaneInfo, TicketInfo
from supermask.tickets.names import PLANES

__all__ = ["Planes", "Reader", "reading", "recode", "write", "written"]

Planes = Mapping[str, Tensor]  # of one layer, by name: packed int32 [rows, words] each


class Reader:
    """An open ticket whose header, sizes and digest hold.

    Attributes:
        info: what the header says.
    """

    def __init__(self, container: Container, where: str) -> None:
        self._container, self._where = container, where
        text = container.metadata.get(METADATA)
        if text is None:
            raise TicketError(f"{where}: a safetensors file without {METADATA!r} metadata is not a ticket")
        self.info: TicketInfo = parse(where, text, container.entries, container.bytes)
        header = json.loads(text)
        del header["sha256"]
        entries = {
            name: (entry.dtype, entry.shape, container.chunks(name)) for name, entry in container.entries.items()
        }
        if (digest := _digest(header, entries)) != self.info.sha256:
            raise TicketError(f"{where}: damaged: its SHA-256 is {digest}, its header says {self.info.sha256}")

    def planes(self, layer: LayerInfo) -> dict[str, Tensor]:
        """The planes of one layer, by name.

        Raises:
            TicketError: a plane is not what the header says of it.
        """
        found: dict[str, Tensor] = {}
        grid = layer.grid(self.info.seed)
        for name, plane in layer.planes.items():
            stored, within = layer.tensor(name), PLANES[name].within
            try:
                found[name] = decode(
                    self._container.read(stored), plane.encoding, grid, None if within is None else found[within],
                    kept=plane.kept, count=plane.bits,
                )  # fmt: skip
            except CodeError as error:
                raise TicketError(f"{self._where}: layer {layer.name!r}: tensor {stored!r}: {error}") from error
        return found

    def tensor(self, name: str) -> Tensor:
        """A tensor that is no plane, as it is stored."""
        return self._container.tensor(name)


@contextmanager
def reading(source: str | Path | BinaryIO) -> Iterator[Reader]:
    """An open ticket, after the checks of its header, sizes and digest.

    Args:
        source: as supermask.tickets.container.opened takes it. The file must not be written to meanwhile; tickets are
            replaced, never changed.

    Raises:
        TicketError: no such file, not a ticket, of another version, damaged, or contradicting itself.
    """
    with opened(source) as (file, where):
        yield Reader(Container(file, where), where)


def write(
    target: str | Path | BinaryIO,
    planes: Mapping[str, Planes],
    tensors: Mapping[str, Tensor],
    *,
    encoding: Encoding,
    seed: int,
    architecture: Architecture | None,
    layers: Sequence[Layer],
    folded: Sequence[str],
    narrowed: bool,
) -> TicketInfo:
    """Write a ticket, and read it back: beside a path, which it then takes the place of in one step, or, for an open
    file, in memory before anything is written.

    Args:
        planes: by layer, and by name.
        tensors: the others, of dtypes that a ticket holds, contiguous on CPU, none sharing memory with another.
        encoding: "ans" falls back to "raw" for planes that are no smaller coded.

    Raises:
        TicketError: the file cannot be written, or could not be read. `target` is then as it was, unless the message
            says that the file is written and a power cut may lose it.
    """
    where = target_name(target)
    coded, filled = _coded(planes, layers, seed, encoding)
    if clash := coded.keys() & tensors.keys():
        raise TicketError(f"{where}: a tensor of the model has the name of a mask's tensor, {min(clash)!r}")
    header = header_of(seed=seed, architecture=architecture, layers=filled, folded=folded, narrowed=narrowed)
    stored = {name: torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
              for name, data in coded.items()} | dict(tensors)  # fmt: skip
    header["sha256"] = _digest(
        header, {name: (DTYPE_NAMES[t.dtype], tuple(t.shape), [_bytes_of(t)]) for name, t in stored.items()}
    )
    data = safetensors.torch.save(stored, {METADATA: canonical(header)})

    def check(source: Path | BinaryIO) -> TicketInfo:
        with opened(source) as (file, _):
            reader = Reader(Container(file, where), where)
            for layer in reader.info.layers:
                if not _same(reader.planes(layer), planes[layer.name]):
                    raise TicketError(f"{where}: layer {layer.name!r}: its planes do not read back as they were")
        return reader.info

    if isinstance(target, str | Path):
        return written(Path(target), partial(Path.write_bytes, data=data), check)
    info = check(io.BytesIO(data))
    try:
        taken = target.write(data)
    except OSError as error:
        raise TicketError(f"{where}: cannot be written: {error}") from error
    if taken not in (None, len(data)):  # a file without a buffer may take less
        raise TicketError(f"{where}: {taken:,} bytes of {len(data):,} were written")
    return info


def written(path: Path, write: Callable[[Path], object], check: Callable[[Path], Found]) -> Found:
    """`write_atomically`, with what the file system says as a TicketError."""
    try:
        return write_atomically(path, write, check)
    except UnsyncedError as error:
        raise TicketError(f"{path}: {error.strerror}; mend the disk and write it again") from error
    except OSError as error:
        raise TicketError(f"{path}: cannot be written: {error}") from error


def recode(source: str | Path | BinaryIO, target: str | Path | BinaryIO, encoding: Encoding) -> TicketInfo:
    """Write a ticket again with its planes in another encoding, and in this release's version; no network is built.

    Raises:
        TicketError: as `reading` and `write`.
    """
    with reading(source) as reader:
        info = reader.info
        return write(
            target,
            {layer.name: reader.planes(layer) for layer in info.layers},
            {tensor.name: reader.tensor(tensor.name) for tensor in info.tensors},
            encoding=encoding,
            seed=info.seed,
            architecture=info.architecture,
            layers=info.layers,
            folded=info.folded,
            narrowed=info.narrowed,
        )


def _same(one: Planes, two: Planes) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def _coded(
    planes: Mapping[str, Planes], layers: Sequence[Layer], seed: int, encoding: Encoding
) -> tuple[dict[str, bytes], list[LayerInfo]]:
    """The bytes of all planes by tensor name, and the layers with what is to be said of them."""
    draws = None
    if encoding == "ans":
        draws = find_draws([
            Plane(grid=layer.grid(seed), words=planes[layer.name]["mask"], within=None) for layer in layers
        ])  # fmt: skip
    coded: dict[str, bytes] = {}
    filled: list[LayerInfo] = []
    for layer in layers:
        given, said = planes[layer.name], dict[str, PlaneInfo]()
        for name in PLANES:
            if name not in given:
                continue
            around = PLANES[name].within
            bits, within = (layer.edges, None) if around is None else (said[around].kept, given[around])
            plane, kept = Plane(grid=layer.grid(seed), words=given[name], within=within), count_bits(given[name])
            data, used = _smallest(plane, kept, bits, draws, encoding)
            coded[layer.tensor(name)] = data
            said[name] = PlaneInfo(bits=bits, kept=kept, encoding=used, bytes=len(data))
        filled.append(layer.filed(said))
    total = sum(layer.held for layer in filled)
    if encoding == "ans" and total > most_bits(sum(map(len, coded.values()))):
        return _coded(planes, layers, seed, "raw")  # so empty a network that readers would take it for an attack
    return coded, filled


def _smallest(plane: Plane, kept: int, count: int, draws: Draws | None, encoding: Encoding) -> tuple[bytes, Encoding]:
    if encoding == "ans":
        levels = None if kept in (0, count) else fit(plane, draws)
        data = encode_ans(plane.words, plane.grid, plane.within, kept=kept, count=count, levels=levels)
        if 8 * len(data) < count:
            return data, "ans"
    return encode_raw(plane.words, plane.grid, plane.within), "raw"


def _digest(header: Mapping[str, Any], tensors: Mapping[str, tuple[str, tuple[int, ...], Iterable[Any]]]) -> str:
    """SHA-256 of a header without its digest, and of tensors: dtype, shape and bytes by name."""
    digest = hashlib.sha256(f"{canonical(header)}\n".encode())
    for name, (dtype, shape, chunks) in sorted(tensors.items()):
        digest.update(f"{canonical([name, dtype, list(shape)])}\n".encode())
        for chunk in chunks:
            digest.update(chunk)
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy().data
