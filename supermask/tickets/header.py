"""The header of a ticket: what it says, spelt in one way, and checked against the tensors that are there.

The format is specified in docs/ticket-format.md. Tickets of older versions are read as what they say in this one
(supermask/tickets/versions.py).
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from supermask.checks import join
from supermask.edges.draws import WeightInit
from supermask.networks.architecture import Architecture
from supermask.tickets.coding.planes import Encoding
from supermask.tickets.container import Entry, parsed
from supermask.tickets.errors import TicketError, short
from supermask.tickets.fields import check_fields, choices
from supermask.tickets.info import Layer, LayerInfo, PlaneInfo, TensorInfo, TicketInfo
from supermask.tickets.names import PLANES, VALUES, check_planes, check_values
from supermask.tickets.versions import HEADER, VERSION, layer_of

__all__ = ["METADATA", "canonical", "header_of", "most_bits", "parse"]

PRNG = {"name": "philox4x32", "rounds": 10}
METADATA = "supermask"

_ALLOWANCE = 1 << 27  # bits of planes that any file may have: 16 MiB, 5 times ResNet-50
_RATIO = 1 << 13  # and for every byte of the file: a plane that shrinks 1,024 times keeps one edge in 15,000
_MOST_EDGES = 1 << 60
_MOST_ROW = 1 << 20  # edges: a row is coded as a whole, in 40 bytes an edge; the widest of torchvision has 25,088
_SHOWN = 500  # characters of an error from elsewhere
_LIMITS = {"index": 1 << 31, "generation": 1 << 22}  # of a layer's counter, kernels/base/philox.py
_PLANE = {"kept": int, "encoding": str}


def canonical(value: Any) -> str:
    """JSON in the one spelling that a ticket has."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def header_of(
    *, seed: int, architecture: Architecture | None, layers: Sequence[LayerInfo], folded: Sequence[str], narrowed: bool
) -> dict[str, Any]:
    """The header, but for its digest."""

    return {
        "version": VERSION,
        "prng": PRNG,
        "seed": seed,
        "architecture": None if architecture is None else architecture.to_json(),
        "layers": [
            {
                "name": layer.name,
                "index": layer.index,
                "shape": list(layer.shape),
                "weights": layer.weights,
                "generation": layer.generation,
                "planes": {
                    name: {"kept": plane.kept, "encoding": plane.encoding} for name, plane in layer.planes.items()
                },
                "values": {
                    name: {"coding": VALUES[name].coding, "value": value} for name, value in layer.values.items()
                },
            }
            for layer in layers
        ],
        "folded": list(folded),
        "narrowed": narrowed,
    }


def parse(where: str, text: str, entries: Mapping[str, Entry], file_bytes: int) -> TicketInfo:
    """What a header says, checked in itself and against the dtypes, shapes and sizes of the stored tensors.

    Raises:
        TicketError: another version, or a header that does not hold; the message names the layer and both values.
    """
    header = _fields(where, text)
    version = header["version"]
    layers = _layers(where, header["layers"], version, entries)
    architecture = _architecture(where, header, text)
    _check_layers(where, layers, file_bytes)
    planes = {layer.tensor(name) for layer in layers for name in layer.planes}
    tensors = [
        TensorInfo(name=name, dtype=entry.dtype, shape=entry.shape)
        for name, entry in sorted(entries.items())
        if name not in planes
    ]
    folded = header.get("folded", [])
    _check_folded(where, folded, {tensor.name for tensor in tensors})
    return TicketInfo(
        path=where,
        version=version,
        seed=header["seed"],
        architecture=architecture,
        layers=tuple(layers),
        tensors=tuple(tensors),
        folded=tuple(folded),
        narrowed=header.get("narrowed", False),
        file_bytes=file_bytes,
        sha256=header["sha256"],
    )


def _fields(where: str, text: str) -> dict[str, Any]:
    """A header of a version that is read, with the fields that it has there."""
    try:
        header = parsed(text)
    except ValueError as error:
        raise TicketError(f"{where}: the {METADATA!r} metadata is not JSON: {error}") from error
    version = header.get("version", VERSION) if isinstance(header, dict) else VERSION
    if type(version) is not int or version not in HEADER:
        raise TicketError(
            f"{where}: version {short(version)}, and this release reads 1 to {VERSION}: upgrade supermask"
        )
    check_fields(f"{where}: header", header, HEADER[version])
    check_fields(f"{where}: prng", header["prng"], {name: type(value) for name, value in PRNG.items()})
    if header["prng"] != PRNG:
        raise TicketError(f"{where}: weights from {short(header['prng'])}, and this release draws them with {PRNG}")
    if not 0 <= header["seed"] < 1 << 64:
        raise TicketError(f"{where}: seed {short(header['seed'])}: expected 0 to 2**64 - 1")
    fields: dict[str, Any] = header
    return fields


def _architecture(where: str, header: Mapping[str, Any], text: str) -> Architecture | None:
    """The architecture of a header, which is spelt as `text`."""
    try:
        architecture = None if header["architecture"] is None else Architecture.from_json(header["architecture"])
        same = canonical(header) == text
    except (TypeError, ValueError, RecursionError) as error:
        raise TicketError(f"{where}: {str(error)[:_SHOWN]}") from error
    if not str(architecture).isprintable():
        raise TicketError(f"{where}: architecture {short(str(architecture))}: expected printable names")
    if not same:
        raise TicketError(f"{where}: the header is not spelt as a ticket's is: damaged, or written by another program")
    return architecture


def _layers(where: str, values: list[Any], version: int, entries: Mapping[str, Entry]) -> list[LayerInfo]:
    layers: list[LayerInfo] = []
    names: set[str] = set()
    for number, value in enumerate(values):
        if isinstance(value, dict) and isinstance(name := value.get("name"), str):
            if name in names:
                raise TicketError(f"{where}: two layers are called {short(name)}")
            names.add(name)
        layers.append(_layer(f"{where}: layer {number}", value, version, entries))
    return layers


def _layer(where: str, value: Any, version: int, entries: Mapping[str, Entry]) -> LayerInfo:
    """A layer, with what is stored for it."""
    value = layer_of(where, value, version)
    where = f"{where} ({short(value['name'])})"
    _check_layer(where, value)
    layer = Layer(
        name=value["name"],
        index=value["index"],
        shape=tuple(value["shape"]),
        weights=value["weights"],
        generation=value["generation"],
        values=check_values(where, value["values"]),
    )
    names = check_planes(where, value["planes"], layer.weights)
    where = f"{where} of shape {value['shape']}"
    found: dict[str, PlaneInfo] = {}
    for name in names:
        within = PLANES[name].within
        bits = layer.edges if within is None else found[within].kept
        found[name] = _plane(where, PLANES[name].what, layer.tensor(name), value["planes"][name], bits, entries)
    return layer.filed(found)


def _check_layer(where: str, value: Mapping[str, Any]) -> None:
    """A layer's shape and the numbers that make its weights are such as it can have."""
    shape, weights = value["shape"], value["weights"]
    wrong = any(type(size) is not int or not 1 <= size < _MOST_EDGES for size in shape)
    if not shape or wrong or len(shape) > 16 or math.prod(shape) >= _MOST_EDGES or math.prod(shape[1:]) > _MOST_ROW:
        raise TicketError(
            f"{where}: shape {short(shape)}: expected 1 to 16 positive integers, of product below {_MOST_EDGES} "
            f"and, without the first, of {_MOST_ROW} at most"
        )
    if weights not in get_args(WeightInit):
        raise TicketError(f"{where}: weights {short(weights)}, and this release reads {choices(get_args(WeightInit))}")
    for name, limit in _LIMITS.items():
        if not 0 <= value[name] < limit:
            raise TicketError(f"{where}: {name} {short(value[name])}: expected 0 to {limit - 1}")


def _plane(where: str, what: str, name: str, value: Any, bits: int, entries: Mapping[str, Entry]) -> PlaneInfo:
    """A plane of `bits` bits, with what is stored for it."""
    check_fields(f"{where}: {what}", value, _PLANE)
    kept, encoding = value["kept"], value["encoding"]
    if not 0 <= kept <= bits:
        raise TicketError(f"{where}: {what} has kept {short(kept)}, of {bits} bits")
    if encoding not in get_args(Encoding):
        known = choices(get_args(Encoding))
        raise TicketError(f"{where}: encoding {short(encoding)}, and this release reads {known}: upgrade supermask")
    if name not in entries:
        raise TicketError(f"{where}: no tensor {short(name)} holds {what}")
    entry, raw = entries[name], -(-bits // 8)
    right = entry.bytes == raw if encoding == "raw" else entry.bytes <= raw
    if entry.dtype != "U8" or len(entry.shape) != 1 or not right:
        most = "" if encoding == "raw" else " at most"
        raise TicketError(
            f"{where}: {what} is {entry.dtype} of shape {short(list(entry.shape))}, and {bits} bits, {encoding}, "
            f"are U8 of shape [{raw}]{most}"
        )
    return PlaneInfo(bits=bits, kept=kept, encoding=encoding, bytes=entry.bytes)


def most_bits(file_bytes: int) -> int:
    """Bits of planes that a file of so many bytes may have, however well they are coded: 16 MiB, and 1 KiB a byte."""
    return _ALLOWANCE + _RATIO * file_bytes


def _check_layers(where: str, layers: Sequence[LayerInfo], file_bytes: int) -> None:
    if not layers:
        raise TicketError(f"{where}: no layers: a ticket has at least one")
    indices: dict[int, str] = {}
    for layer in layers:
        if (other := indices.setdefault(layer.index, layer.name)) != layer.name:
            raise TicketError(
                f"{where}: layers {other!r} and {layer.name!r} both have index {layer.index}, so they draw the same "
                "weights: give each layer its own"
            )
    bits = sum(layer.held for layer in layers)
    if bits > (most := most_bits(file_bytes)):
        largest = max(layers, key=lambda layer: layer.held)
        raise TicketError(
            f"{where}: its planes have {bits:,} bits, rows padded to 128, and a file of {file_bytes:,} bytes may have "
            f"{most:,} at most; layer {largest.name!r} of shape {list(largest.shape)} has the most"
        )


def _check_folded(where: str, folded: list[Any], tensors: set[str]) -> None:
    if any(type(name) is not str for name in folded) or folded != sorted(set(folded)):
        raise TicketError(f"{where}: folded {short(folded)}: expected names of batch norms, each once, in order")
    for name in folded:
        for part in ("weight", "bias"):
            if join(name, part) not in tensors:
                raise TicketError(f"{where}: batch norm {short(name)} is folded, and there is no tensor of its {part}")
