"""The ticket file: a mask and a seed as bytes, checked before anything is made of them.

One safetensors file. Its tensors, all little-endian:

    <layer>.mask   of every masked layer: uint8 [ceil(edges / 8)], the bits of its rows x cols mask in row-major order:
                   edge i is bit i % 8 of byte i // 8, unused bits are zero (numpy.packbits, bitorder="little")
    anything else  what the network needs besides, by its state-dict name, in its own dtype

and its metadata `supermask`, one JSON object:

    {"architecture": {"arguments", "name"} or null, "layers": [{"coats", "constant", "encoding", "generation", "index",
     "kept", "name", "shape", "weights"}], "prng": {"name", "rounds"}, "seed", "sha256", "version"}

The object is spelt as Python's json.dumps(sort_keys=True, separators=(",", ":")) spells it, and readers refuse any
other spelling. The digest is over that text without its last `"sha256":"...",`, a newline, and for every tensor, by
name, the line ["<name>","<dtype>",[<shape>]] in the same spelling, a newline, and its bytes. Dtypes have the names that
safetensors gives them.
"""

import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from supermask.draws import WeightInit
from supermask.networks import Architecture

VERSION = 1
PRNG = {"name": "philox4x32", "rounds": 10}
METADATA = "supermask"
Encoding = Literal["raw"]

_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_HEADER = {"version": int, "prng": dict, "seed": int, "architecture": (dict, type(None)), "layers": list, "sha256": str}
_LAYER = {
    "name": str, "index": int, "shape": list, "weights": str, "constant": float, "coats": int, "kept": int,
    "encoding": str, "generation": int,
}  # fmt: skip
_MOST_EDGES = 1 << 60
_LIMITS = {"index": 1 << 31, "generation": 1 << 22}  # of a layer's counter, kernels/philox.py


class TicketError(ValueError):
    """A ticket that cannot be written or is not what it says; the message names the file, the layer and both values."""


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """One masked layer of a ticket.

    Attributes:
        name: in the network.
        index: third word of its counter.
        shape: of the weight.
        weights, constant: distribution of theta0, and its magnitude.
        coats: masks of the layer.
        kept: edges the mask selects.
        encoding: of the mask.
        generation: how many times theta0 was re-drawn.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    weights: WeightInit
    constant: float
    coats: int = 1
    kept: int
    encoding: Encoding = "raw"
    generation: int

    @property
    def edges(self) -> int:
        return math.prod(self.shape)

    @property
    def mask_name(self) -> str:
        """Name of the tensor that holds the mask."""
        return f"{self.name}.mask".lstrip(".")

    @property
    def mask_bytes(self) -> int:
        return -(-self.edges // 8)


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One tensor of a ticket that is not a mask; dtype as safetensors calls it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * _DTYPES[self.dtype].itemsize


@dataclass(frozen=True, kw_only=True)
class TicketInfo:
    """What a ticket holds.

    Attributes:
        layers: masked, in the file's order.
        tensors: the others.
        file_bytes: of the whole file.
    """

    path: Path
    version: int
    seed: int
    architecture: Architecture | None
    layers: tuple[LayerInfo, ...]
    tensors: tuple[TensorInfo, ...]
    file_bytes: int
    sha256: str

    @property
    def edges(self) -> int:
        return sum(layer.edges for layer in self.layers)

    @property
    def kept(self) -> int:
        return sum(layer.kept for layer in self.layers)

    @property
    def dense_bytes(self) -> int:
        """Of the same network with four bytes an edge, and its other tensors as they are."""
        return 4 * self.edges + sum(tensor.bytes for tensor in self.tensors)

    @property
    def bits_per_edge(self) -> float:
        """The whole file, over the edges."""
        return 8 * self.file_bytes / self.edges

    def __str__(self) -> str:
        width = max(len(layer.name) for layer in self.layers)
        others = sum(tensor.bytes for tensor in self.tensors)
        lines = [
            f"{self.path}: ticket, version {self.version}, seed {self.seed}, {self.architecture or 'no architecture'}",
            f"masked: {len(self.layers)} layers, {self.kept:,} of {self.edges:,} edges kept",
        ]
        for layer in self.layers:
            lines.append(
                f"  {layer.name:{width}}  layer {layer.index} {layer.shape}  {layer.kept:,} of {layer.edges:,} "
                f"{layer.kept / layer.edges:7.2%}  {layer.weights} {layer.constant:.4g}, "
                f"generation {layer.generation}, {layer.mask_bytes:,} bytes {layer.encoding}"
            )
        lines += [
            f"other tensors: {len(self.tensors)}, {others:,} bytes",
            f"file: {self.file_bytes:,} bytes, {self.bits_per_edge:.3f} bits an edge, "
            f"{self.dense_bytes / self.file_bytes:.1f} times smaller than dense float32 ({self.dense_bytes:,} bytes)",
            f"sha256: {self.sha256}",
        ]
        return "\n".join(lines)


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    seed: int,
    architecture: Architecture | None,
    layers: Sequence[LayerInfo],
) -> None:
    """Write a ticket to a file beside `path`, read it back, and put it in the place of `path` in one step.

    Args:
        tensors: masks and others, contiguous on CPU, none sharing memory with another.

    Raises:
        TicketError: the file cannot be written, or could not be read. `path` is then as it was.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPE_NAMES:
            raise TicketError(f"{path}: tensor {name!r} is {tensor.dtype}: a ticket holds {', '.join(_DTYPES)}")
    header = {
        "version": VERSION,
        "prng": PRNG,
        "seed": seed,
        "architecture": None if architecture is None else architecture.to_json(),
        "layers": [asdict(layer) for layer in layers],
    }
    header["sha256"] = _digest(header, tensors)
    data = safetensors.torch.save(dict(tensors), {METADATA: _canonical(header)})
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.unfinished")  # two processes may write one ticket
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        read(temporary, shown=path)
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise TicketError(f"{path}: cannot be written: {error}") from error
        raise
    _sync_folder(path)


def read(path: Path, *, shown: Path | None = None) -> tuple[TicketInfo, dict[str, Tensor]]:
    """The tensors of a ticket, mapped from the file and checked against its header, sizes, digest and kept counts.

    Args:
        shown: name of the file in errors.

    Raises:
        TicketError: no such file, not a ticket, of another version, damaged, or contradicting itself.
    """
    where = shown or path
    if not path.is_file():
        raise TicketError(f"{where}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA)
            entries = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            stored = {name: (entry.get_dtype(), tuple(entry.get_shape())) for name, entry in entries.items()}
            tensors = {name: file.get_tensor(name) for name in stored}  # mapped, so nothing is read here
            file_bytes = path.stat().st_size
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise TicketError(f"{where}: not a readable safetensors file, truncated or damaged: {error}") from error
    if text is None:
        raise TicketError(f"{where}: a safetensors file without {METADATA!r} metadata is not a ticket")
    info = _parse(where, text, stored, file_bytes)
    header = json.loads(text)
    del header["sha256"]
    if (digest := _digest(header, tensors)) != info.sha256:
        raise TicketError(f"{where}: damaged: its SHA-256 is {digest}, its header says {info.sha256}")
    for layer in info.layers:
        mask = tensors[layer.mask_name].numpy()
        kept = int(np.bitwise_count(mask).sum(dtype=np.int64))
        if kept != layer.kept:
            raise TicketError(f"{where}: layer {layer.name!r}: kept {layer.kept}, but its mask selects {kept}")
        if layer.edges % 8 and mask[-1] >> layer.edges % 8:
            raise TicketError(
                f"{where}: layer {layer.name!r}: the last byte of its mask is {mask[-1]}, and holds only "
                f"{layer.edges % 8} of the {layer.edges} edges"
            )
    return info, tensors


def _parse(path: Path, text: str, stored: Mapping[str, tuple[str, tuple[int, ...]]], file_bytes: int) -> TicketInfo:
    """The header, checked against the dtypes and shapes of the stored tensors."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TicketError(f"{path}: the {METADATA!r} metadata is not JSON: {error}") from error
    version = header.get("version", VERSION) if isinstance(header, dict) else VERSION
    if version != VERSION:
        raise TicketError(f"{path}: version {version!r}, and this release reads {VERSION}: upgrade supermask")
    _check_fields(f"{path}: header", header, _HEADER)
    if header["prng"] != PRNG:
        raise TicketError(f"{path}: weights from {header['prng']}, and this release draws them with {PRNG}")
    if not 0 <= header["seed"] < 1 << 64:
        raise TicketError(f"{path}: seed {header['seed']}: expected 0 to 2**64 - 1")
    layers = tuple(_parse_layer(f"{path}: layer {number}", value) for number, value in enumerate(header["layers"]))
    try:
        architecture = None if header["architecture"] is None else Architecture.from_json(header["architecture"])
        same = _canonical(header) == text
    except (TypeError, ValueError, RecursionError) as error:
        raise TicketError(f"{path}: {error}") from error
    if not same:
        raise TicketError(f"{path}: the header is not spelt as a ticket's is: damaged, or written by another program")
    _check_layers(path, layers)
    _check_stored(path, layers, stored)
    masks = {layer.mask_name for layer in layers}
    return TicketInfo(
        path=path,
        version=VERSION,
        seed=header["seed"],
        architecture=architecture,
        layers=layers,
        tensors=tuple(
            TensorInfo(name=name, dtype=dtype, shape=shape)
            for name, (dtype, shape) in sorted(stored.items())
            if name not in masks
        ),
        file_bytes=file_bytes,
        sha256=header["sha256"],
    )


def _parse_layer(where: str, value: Any) -> LayerInfo:
    _check_fields(where, value, _LAYER)
    where = f"{where} ({value['name']!r})"
    shape, constant = value["shape"], value["constant"]
    if not shape or any(type(size) is not int or size < 1 for size in shape) or math.prod(shape) >= _MOST_EDGES:
        raise TicketError(f"{where}: shape {shape}: expected positive integers, of product below {_MOST_EDGES}")
    if not math.isfinite(constant) or torch.tensor(constant).item() != constant:
        raise TicketError(f"{where}: constant {constant}: expected a finite float32")
    if value["coats"] != 1:
        raise TicketError(f"{where}: {value['coats']} coats, and this release reads 1")
    for name, choices in (("weights", WeightInit), ("encoding", Encoding)):
        if value[name] not in get_args(choices):
            raise TicketError(
                f"{where}: {name} {value[name]!r}, and this release reads {', '.join(map(repr, get_args(choices)))}"
            )
    for name, limit in _LIMITS.items():
        if not 0 <= value[name] < limit:
            raise TicketError(f"{where}: {name} {value[name]}: expected 0 to {limit - 1}")
    return LayerInfo(**(value | {"shape": tuple(shape)}))


def _check_layers(path: Path, layers: Sequence[LayerInfo]) -> None:
    if not layers:
        raise TicketError(f"{path}: no layers: a ticket has at least one")
    names: set[str] = set()
    indices: dict[int, str] = {}
    for layer in layers:
        if layer.name in names:
            raise TicketError(f"{path}: two layers are called {layer.name!r}")
        names.add(layer.name)
        if (other := indices.setdefault(layer.index, layer.name)) != layer.name:
            raise TicketError(
                f"{path}: layers {other!r} and {layer.name!r} both have index {layer.index}, so they draw the same "
                "weights: give each layer its own"
            )


def _check_stored(path: Path, layers: Sequence[LayerInfo], stored: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    for name, (dtype, _) in stored.items():
        if dtype not in _DTYPES or not name.isprintable():
            raise TicketError(
                f"{path}: tensor {name!r} is {dtype}: a ticket holds {', '.join(_DTYPES)}, under printable names"
            )
    for layer in layers:
        where = f"{path}: layer {layer.name!r}"
        if layer.mask_name not in stored:
            raise TicketError(f"{where}: no tensor {layer.mask_name!r} holds its mask")
        dtype, shape = stored[layer.mask_name]
        if (dtype, shape) != ("U8", (layer.mask_bytes,)):
            raise TicketError(
                f"{where}: its mask is {dtype} of shape {list(shape)}, and {layer.edges} edges of shape "
                f"{list(layer.shape)} are U8 of shape [{layer.mask_bytes}]"
            )


def _check_fields(where: str, value: Any, kinds: Mapping[str, Any]) -> None:
    """`value` has the fields `kinds` and no other, each of its type; true and false are no integers."""
    if type(value) is not dict or set(value) != set(kinds):
        found = sorted(value) if type(value) is dict else type(value).__name__
        raise TicketError(f"{where}: found {found}, expected the fields {sorted(kinds)}")
    for name, kind in kinds.items():
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if type(value[name]) not in allowed:
            raise TicketError(f"{where}: {name} {value[name]!r}: expected {' or '.join(k.__name__ for k in allowed)}")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a header without its digest, and of the tensors."""
    digest = hashlib.sha256(f"{_canonical(header)}\n".encode())
    for name, tensor in sorted(tensors.items()):
        line = _canonical([name, _DTYPE_NAMES[tensor.dtype], list(tensor.shape)])
        digest.update(f"{line}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sync_folder(path: Path) -> None:
    """Make the new name last through a power cut, on file systems that can."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise TicketError(f"{path}: written, but its folder could not be synced: {error}") from error
