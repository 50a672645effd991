"""What a reader of tickets promises for any bytes, as a check that fuzzing calls.

    check(data)

- `inspect`, `verify` and `load` raise nothing but TicketError, which names the file in a message of bounded length that
  a terminal can show; and a file that one refuses is refused by those that look further.
- Memory follows the length of the file. The format lets every file have 2^29 bits of planes, however short it is, and
  2^13 more a byte; with those constants no file that a fuzzer makes would ever be too large, and one that is read would
  take seconds. So they are lowered here, to ALLOWANCE bits and none a byte, and memory is held to what planes of so
  many bits take while they are decoded. What grows with the bits grows with the real limit, too.
- What is accepted means one thing: written again, in either encoding, it reads back with the same planes, weights and
  tensors.
"""

import io
import re
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torchvision.models  # noqa: F401 - or the first file that names one of its networks would pay for the import
from torch import Tensor, nn

import supermask
from supermask.edges.in_model import all_edges
from supermask.edges.packed import PackedEdges
from supermask.edges.stored import Stored
from supermask.kernels.base.bits import words_per_row
from supermask.networks.layers import MaskedLayer, SupermaskConv1d, SupermaskConv2d, SupermaskConv3d
from supermask.tickets import header as ticket_header
from supermask.tickets.coding import fit as mask_fit
from supermask.tickets.container import DTYPES
from supermask.tickets.file import Planes, reading, write
from supermask.tickets.info import LayerInfo, TicketInfo

__all__ = ["ALLOWANCE", "check", "kind_of", "limits", "named", "outcome"]

ALLOWANCE = 1 << 16  # bits of planes
_MOST_MESSAGE = 4000  # characters
_MOST_MEMORY = 64 * ALLOWANCE  # bytes: decoding holds a few numbers of eight bytes for every edge of some rows
_MOST_SKELETON = 64 << 20  # an architecture of 10,000 tensors, of which a short file can name one

_CONVOLUTIONS = {3: SupermaskConv1d, 4: SupermaskConv2d, 5: SupermaskConv3d}


@contextmanager
def limits() -> Iterator[None]:
    """The limit of planes lowered to ALLOWANCE bits; and a writer that tries few draws, which is most of its time."""
    with patch.multiple(ticket_header, _ALLOWANCE=ALLOWANCE, _RATIO=0), patch.object(mask_fit, "_GENERATIONS", 1):
        yield


def check(data: bytes) -> str:
    """Read a file, and say how that ended: "accepted", "accepted without a network", or what kind of refusal.

    Raises:
        AssertionError: a promise is broken.
    """
    with limits():
        plain = 64 * len(data) + _MOST_MEMORY
        seen = _reading(data, lambda file: str(supermask.inspect(file)), plain)
        verified = _reading(data, supermask.verify, plain + _MOST_SKELETON)
        loaded = _reading(data, supermask.load, plain + _MOST_SKELETON)
        if isinstance(seen, supermask.TicketError):
            for later in (verified, loaded):
                assert isinstance(later, supermask.TicketError), f"refused with {seen!s:.300}, and then read"
            return kind_of(seen)
        assert all(line.isprintable() for line in seen.split("\n")), f"unprintable: {seen!r:.300}"
        if isinstance(verified, supermask.TicketError):
            assert isinstance(loaded, supermask.TicketError), f"verify says {verified!s:.300}, and load nothing"
            return kind_of(verified)
        _check_written_again(data, verified)
        if verified.architecture is not None:
            fresh: Callable[[], nn.Module | None] = lambda: None  # noqa: E731
        elif _holder(verified) is None:
            return "accepted, and no network has such names"
        else:
            fresh = partial(_holder, verified)
            loaded = _reading(data, lambda file: supermask.load(file, model=fresh()), plain + _MOST_SKELETON)
        if isinstance(loaded, supermask.TicketError):
            return kind_of(loaded)
        _check_saved_again(loaded, fresh, verified)
        return "accepted"


def kind_of(error: Exception) -> str:
    """A refusal without names and values: files that are refused for one reason have one kind."""
    text = str(error).replace("<BytesIO>: ", "")
    for pattern in (
        r"(?<=its SHA-256 ).*|(?<=another network than ).*|^[\w/]+\(.*|(?<=arguments).*(?= is )",  # free texts
        r".{200}\.\.\.",  # long values
        r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"",
        r"(?<=found )\w+|-?\b(?:BOOL|[UIF]\d+\w*|BF16|nan|inf|True|False|None)\b|-?\d[\d,.]*(?:e[+-]?\d+)?",
        *[r"\([^][(){}]*\)|\[[^][(){}]*\]|\{[^][(){}]*\}"] * 4,  # from the inside
        r"[\[({'\"].*",  # cut short
    ):
        text = re.sub(pattern, "#", text)
    return re.sub(r"#(?:[\s,:.]*#)*", "#", text)[:120]


def outcome(data: bytes) -> str:
    """What `check` says, or the kind of promise that is broken."""
    try:
        return check(data)
    except AssertionError as error:
        return kind_of(error)


def named(kind: str) -> str:
    """A file's name for inputs of one kind."""
    words = re.sub(r"[^a-z]+", "_", kind.lower().replace("<bytesio>", "")).strip("_")
    return f"{words[:60]}_{zlib.crc32(kind.encode('utf-8', 'replace')):08x}"


def _reading(data: bytes, read: Callable[[io.BytesIO], Any], most: int) -> Any:
    """What `read` returns, or the TicketError that it raises."""
    tracemalloc.start()
    try:
        found = read(io.BytesIO(data))
    except supermask.TicketError as error:
        found, message = error, str(error)
        found.with_traceback(None)
        assert message.startswith("<BytesIO>: "), f"the file is not named: {message!r:.300}"
        assert len(message) <= _MOST_MESSAGE, f"a message of {len(message):,} characters: {message!r:.300}"
        assert message.isprintable(), f"unprintable: {message!r:.300}"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} is no TicketError: {error!s:.300}") from error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= most, f"{peak:,} bytes of memory for a file of {len(data):,}, at most {most:,}"
    return found


def _check_written_again(data: bytes, info: TicketInfo) -> None:
    """What the file says, written by the writer and read again; and that its planes take no more than they may."""
    words = sum(
        layer.shape[0] * words_per_row(layer.edges // layer.shape[0]) * len(layer.planes) for layer in info.layers
    )
    assert 32 * words <= ALLOWANCE, f"its planes take {words:,} words in memory"
    with reading(io.BytesIO(data)) as reader:
        planes = {layer.name: reader.planes(layer) for layer in info.layers}
        tensors = {tensor.name: reader.tensor(tensor.name) for tensor in info.tensors}
    for encoding in ("raw", "ans"):
        file = io.BytesIO()
        written = write(
            file, planes, tensors, encoding=encoding, seed=info.seed, architecture=info.architecture,
            layers=info.layers, folded=info.folded, narrowed=info.narrowed,
        )  # fmt: skip
        with reading(io.BytesIO(file.getvalue())) as reader:
            again = reader.info
            assert str(again) == str(written)
            for fact in ("seed", "architecture", "tensors", "folded", "narrowed", "edges", "kept"):
                assert getattr(again, fact) == getattr(info, fact), f"{fact} of what is written again"
            for one, two in zip(info.layers, again.layers, strict=True):
                assert _said(one) == _said(two), f"layer {one.name!r} written again"
                again_planes = reader.planes(two)
                assert list(again_planes) == list(planes[one.name]), f"planes of {one.name!r} written again"
                for name, bits in again_planes.items():
                    assert torch.equal(bits, planes[one.name][name]), f"{name} of {one.name!r} written again"
                edges = [_edges(layer, planes[one.name], info.seed) for layer in (one, two)]
                assert _same(edges[0](torch.float32), edges[1](torch.float32)), f"weights of {one.name!r}"
            for name, tensor in tensors.items():
                assert _same(tensor, reader.tensor(name)), f"tensor {name!r} written again"


def _check_saved_again(network: nn.Module, fresh: Callable[[], nn.Module | None], info: TicketInfo) -> None:
    """A network that was loaded, saved and loaded again."""
    file = io.BytesIO()
    supermask.save(network, file, architecture=info.architecture)
    again = supermask.load(io.BytesIO(file.getvalue()), model=fresh())
    one, two = all_edges(network), all_edges(again)
    assert one.keys() == two.keys()
    for name, edges in one.items():
        other: Any = two[name]
        assert _same(edges.coats, other.coats), f"coats of {name!r} saved again"  # type: ignore[arg-type]
        assert _same(edges(torch.float32), other(torch.float32)), f"weights of {name!r} saved again"
    states = [_others(model) for model in (network, again)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert _same(tensor, states[1][name]), f"tensor {name!r} saved again"


def _said(layer: LayerInfo) -> Any:
    planes = {name: (plane.bits, plane.kept) for name, plane in layer.planes.items()}
    return layer.name, layer.index, layer.shape, layer.weights, layer.generation, layer.values, planes


def _edges(layer: LayerInfo, planes: Planes, seed: int) -> PackedEdges:
    return PackedEdges.of(
        Stored(planes=planes, values=layer.values), layer.shape, seed=seed, layer=layer.index, weights=layer.weights,
        generation=layer.generation, making="materialised",
    )  # fmt: skip


def _same(one: Tensor, two: Tensor) -> bool:
    """To the bit, NaN and zeros of either sign, too."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, two)))


def _others(network: nn.Module) -> dict[str, Tensor]:
    inside = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, PackedEdges))
    return {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(inside)}


def _holder(info: TicketInfo) -> nn.Module | None:
    """A network that computes nothing and has the layers, batch norms and tensors that a ticket names; None where no
    network has such names."""
    try:
        layers = {layer.name: _layer(layer) for layer in info.layers}
        root = layers.pop("", nn.Module())
        for name, layer in layers.items():
            _place(root, name).add_module(name.rpartition(".")[2], layer)
        sizes = {tensor.name: tensor.shape for tensor in info.tensors}
        for name in info.folded:
            norm = nn.BatchNorm1d(sizes[f"{name}.weight"][0])
            _place(root, name).add_module(name.rpartition(".")[2], norm)
        own = {f"{name}.bias" for name, module in root.named_modules() if isinstance(module, MaskedLayer)} | {"bias"}
        own |= {f"{name}.{part}" for name in info.folded for part in ("weight", "bias")}
        for tensor in info.tensors:
            if tensor.name not in own:
                empty = torch.zeros(tensor.shape, dtype=DTYPES[tensor.dtype])
                _place(root, tensor.name).register_buffer(tensor.name.rpartition(".")[2], empty)
    except (AttributeError, IndexError, KeyError, ValueError, TypeError):
        return None
    return root


def _layer(layer: LayerInfo) -> nn.Module:
    mask = torch.zeros(layer.shape[0], words_per_row(layer.edges // layer.shape[0]), dtype=torch.int32)
    edges = PackedEdges(layer.shape, mask, seed=0, layer=0, weights="signed_constant", constant=1.0)
    if len(layer.shape) == 2:
        return supermask.SupermaskLinear(layer.shape[1], layer.shape[0], edges=edges)
    if len(layer.shape) in _CONVOLUTIONS:
        return _CONVOLUTIONS[len(layer.shape)](layer.shape[1], layer.shape[0], layer.shape[2:], edges=edges)
    return edges


def _place(root: nn.Module, name: str) -> nn.Module:
    """The module that owns what is called so, made where it is not there."""
    for part in name.split(".")[:-1]:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    return root
