"""Damaged tickets: a ticket taken apart, changed somewhere, and signed again, so that the change gets past its digest.

Nothing here trusts the reader: files are taken apart and put together from docs/ticket-format.md alone. Only planes
that are to be right are coded by supermask.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import torch

from supermask.kernels.base.bits import pack
from supermask.tickets.coding.levels import Draws, Grid, Levels
from supermask.tickets.coding.planes import encode_ans, encode_raw

__all__ = ["Pairs", "Parts", "Spelt", "Stored", "join", "mutate", "resign", "set_planes", "split"]

_DIGITS = 4300  # that Python reads and writes of an integer
_MOST_EDGES = 4096  # of a layer whose planes are made anew


class Pairs(list[Any]):
    """A JSON object as its pairs: a name can come twice."""

    def __getitem__(self, name: Any) -> Any:
        return super().__getitem__(name) if not isinstance(name, str) else dict(self)[name]

    def put(self, name: str, value: Any) -> None:
        """The last field of this name, or a further one, becomes `value`."""
        places = [at for at, (found, _) in enumerate(self) if found == name]
        if places:
            self[places[-1]] = (name, value)
        else:
            self.append((name, value))


class Spelt(str):
    """A JSON value by its text, for what Python would not write."""


@dataclass
class Stored:
    """A tensor of a ticket; dtype and shape are as the file says, right or not."""

    name: str
    dtype: Any
    shape: Any
    data: bytes


@dataclass
class Parts:
    """A ticket taken apart: its own header, the tensors in the order of their data, the container's other texts."""

    header: Pairs
    tensors: list[Stored]
    texts: Pairs = field(default_factory=Pairs)

    def tensor(self, name: str) -> Stored | None:
        return next((tensor for tensor in self.tensors if tensor.name == name), None)

    def put(self, name: str, data: bytes) -> None:
        """A plane of this name."""
        self.tensors = [tensor for tensor in self.tensors if tensor.name != name]
        self.tensors.append(Stored(name, "U8", [len(data)], data))


def split(data: bytes) -> Parts | None:
    """A file taken apart as far as it goes, or None where there are no two headers in it."""
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        container, body = _read(data[8:start].decode()), data[start:]
        tensors, texts = [], Pairs()
        for name, value in container:
            if name == "__metadata__":
                texts = value
            else:
                first, stop = value["data_offsets"]
                tensors.append(Stored(name, value["dtype"], value["shape"], body[first:stop]))
        header = _read(texts["supermask"])
        texts = Pairs(text for text in texts if text[0] != "supermask")
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError):
        return None
    return Parts(header, tensors, texts) if isinstance(header, Pairs) else None


def join(parts: Parts, distort: Callable[[Pairs], None] | None = None) -> bytes:
    """The file of these parts, its digest right for whatever it says.

    Args:
        distort: changes the container's header before the digest is taken.
    """
    texts = Pairs([*parts.texts, ("supermask", "")])
    container, at = Pairs([("__metadata__", texts)]), 0
    for tensor in parts.tensors:
        place = ("data_offsets", [at, at := at + len(tensor.data)])
        container.append((tensor.name, Pairs([("dtype", tensor.dtype), ("shape", tensor.shape), place])))
    body = b"".join(tensor.data for tensor in parts.tensors)
    if distort is not None:
        distort(container)
    unsigned = Pairs(pair for pair in parts.header if pair[0] != "sha256")
    digest = hashlib.sha256(f"{_spell(unsigned, in_order=True)}\n".encode("utf-8", "replace"))
    for said, data in sorted(_digested(container, body)):
        digest.update(said.encode("utf-8", "replace") + data)
    texts.put("supermask", _spell(Pairs([*unsigned, ("sha256", digest.hexdigest())]), in_order=True))
    text = _spell(container).encode("utf-8", "replace")
    return len(text).to_bytes(8, "little") + text + body


def resign(data: bytes) -> bytes | None:
    """The same ticket with its own header spelt as it has to be, and a right digest; None where it is too damaged."""
    try:
        parts = split(data)
        return None if parts is None else join(parts)
    except RecursionError:
        return None


def mutate(data: bytes, random: Random, raw: Callable[[bytes], bytes] | None = None) -> bytes:
    """A ticket with a few changes, nine times in ten signed again.

    Args:
        raw: changes bytes without knowing what they are; by default the simple ways that are here.
    """
    change_bytes = raw or (lambda data: _bytes(data, random))
    if random.random() < 0.15:
        changed = change_bytes(data)
        return (resign(changed) or changed) if random.random() < 0.7 else changed
    if (parts := split(data)) is None:
        return change_bytes(data)
    distort = None
    try:
        for _ in range(random.choice([1, 1, 1, 2, 2, 3, 5])):
            way = random.random()
            if way < 0.35:
                _change_json(parts.header, random)
            elif way < 0.5:
                _change_layer(parts, random)
            elif way < 0.7:
                _change_plane(parts, random, change_bytes)
            elif way < 0.85:
                _new_planes(parts, random)
            else:
                distort = lambda container: _change_json(container, random)  # noqa: E731
        changed = join(parts, distort)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return change_bytes(data)  # the parts had been damaged too far before
    return changed if random.random() < 0.9 else change_bytes(changed)


def set_planes(
    parts: Parts,
    layer: Pairs,
    planes: list[Any],
    *,
    flips: Any = None,
    encodings: list[str],
    levels: Callable[[Grid], Levels | None] = lambda grid: None,
) -> None:
    """Planes of a layer, coded as a writer would.

    Args:
        planes: bool [rows, cols] by coat, nested.
        flips: bool [rows, cols] within the first, or None.
        encodings: of each plane, flips last; `raw` where `ans` would be longer.
        levels: of `ans` planes.
    """
    shape = tuple(layer["shape"])
    grid = Grid(shape=shape, seed=parts.header["seed"], layer=layer["index"])
    named = [f"mask.{number}" if number else "mask" for number in range(len(planes))] + ["flips"] * (flips is not None)
    said, name = Pairs(), layer["name"]
    within = [None, *planes] if flips is None else [None, *planes[:-1], planes[0]]
    every = planes if flips is None else [*planes, flips]
    own = tuple(f"{part}" if not name else f"{name}.{part}" for part in ("mask", "flips"))
    parts.tensors = [t for t in parts.tensors if t.name not in own and not t.name.startswith(own[0] + ".")]
    for part, bits, inner, wanted in zip(named, every, within, encodings, strict=False):
        words, selected = (None if plane is None else pack(torch.from_numpy(plane)) for plane in (bits, inner))
        assert words is not None
        kept, count = int(bits.sum()), int(bits.size if inner is None else inner.sum())
        data, encoding = encode_raw(words, grid, selected), "raw"
        if wanted == "ans":
            coded = encode_ans(words, grid, selected, kept=kept, count=count, levels=levels(grid))
            if len(coded) <= len(data):
                data, encoding = coded, "ans"
        parts.put(f"{name}.{part}".lstrip("."), data)
        said.append((part, Pairs([("encoding", encoding), ("kept", kept)])))
    layer.put("planes", said)


def _read(text: str) -> Any:
    return json.loads(text, object_pairs_hook=Pairs)


def _spell(value: Any, *, in_order: bool = False) -> str:
    if isinstance(value, Spelt):
        return str(value)
    if isinstance(value, Pairs):
        pairs = sorted(value, key=lambda pair: pair[0]) if in_order else value
        return "{" + ",".join(f"{json.dumps(name)}:{_spell(one, in_order=in_order)}" for name, one in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_spell(one, in_order=in_order) for one in value) + "]"
    return json.dumps(value)


def _digested(container: Pairs, body: bytes) -> list[tuple[str, bytes]]:
    """What of each tensor enters the digest, as far as the container says it."""
    found = []
    for name, value in container:
        try:
            start, stop = value["data_offsets"]
            found.append((f"{_spell([name, value['dtype'], value['shape']])}\n", body[start:stop]))
        except (IndexError, KeyError, TypeError, ValueError):
            continue
    return found


def _numbers(random: Random) -> Any:
    power = 1 << random.randrange(70)
    return random.choice([
        0, 1, -1, 2, 3, 65, True, False, None, 0.5, 0.1, 1.0, -0.0, 1e-45, 3.4028234663852886e38, 1e300, Spelt("1e400"),
        Spelt("NaN"), Spelt("-Infinity"), Spelt("-0"), Spelt("1E5"), Spelt("9" * _DIGITS), Spelt("9" * (_DIGITS + 1)),
        Spelt("1" + "0" * 400 + ".0"), power, power - 1, power + 1, -power, random.randrange(256), 4095, 4096,
    ])  # fmt: skip


def _texts(random: Random) -> str:
    odd = ["", ".", "..", ".a", "a.", "x" * 3000, "\x1b[2J", "\ud800", "\u202e", "\0", "é", "'\"\\", "mlp\n"]
    known = [
        "a.b", "mask", "mask.1", "flips", "constant", "float32", "float16", "bias", "raw", "ans", "fc1", "fc2",
        "signed_constant", "scaled_signed_constant", "unsigned_constant", "kaiming_normal", "kaiming_uniform",
        "philox4x32", "mlp", "conv2", "vgg16_bn", "resnet18", "resnext29_32x4d", "convmixer",
        "torchvision/squeezenet1_1", "torchvision/alexnet", "torchvision/swin_t", "BOOL", "U8", "I64", "F16", "BF16",
        "F32", "F64", "F8_E4M3", "F8_E5M2", "C64", "sizes", "norm", "num_classes", "width", "channels", "weights",
    ]  # fmt: skip
    return random.choice(random.choice([odd, known]))


def _structures(random: Random) -> Any:
    depth = random.choice([1, 2, 50, 120, 200, *range(300, 1000, 7)])
    return random.choice([
        [], Pairs(), [[]], [0] * 3000, ["x"] * 400, Pairs([("a", 1), ("a", 2)]), Spelt("[" * depth + "]" * depth),
        Spelt('{"a":' * depth + "0" + "}" * depth), Pairs([("import", "os")]),
    ])  # fmt: skip


def _value(random: Random) -> Any:
    return random.choice([_numbers, _numbers, _texts, _structures])(random)


def _places(value: Any) -> list[tuple[Any, int]]:
    """Every value in lists and objects, by the one that holds it."""
    found = []
    for at, one in enumerate(value):
        found.append((value, at))
        inner = one[1] if isinstance(value, Pairs) else one
        if isinstance(inner, list):
            found += _places(inner)
    return found


def _change_json(value: Any, random: Random) -> None:
    """Change one place of a JSON value."""
    owner, at = random.choice(_places(value))
    name, old = owner[at] if isinstance(owner, Pairs) else ("", owner[at])
    way = random.random()
    if way < 0.1:
        del owner[at]
    elif way < 0.17:
        owner.insert(random.randrange(len(owner) + 1), owner[at])
    elif way < 0.22 and isinstance(owner, Pairs):
        owner[at] = (random.choice([_texts(random), random.choice(owner)[0]]), old)
    elif way < 0.27 and isinstance(owner, Pairs):
        owner.append((_texts(random), _value(random)))
    elif way < 0.3:
        random.shuffle(owner)
    else:
        put: Any = _value(random)
        if type(old) is int and random.random() < 0.6:
            flipped = old ^ 1 << random.randrange(64)
            put = random.choice([old + 1, old - 1, 2 * old, old // 2, -old, flipped, float(old)])
        elif type(old) is str and random.random() < 0.5:
            put = random.choice([_texts(random), old + "x", old[1:], old.upper()])
        elif random.random() < 0.2:
            other, place = random.choice(_places(value))
            put = other[place][1] if isinstance(other, Pairs) else other[place]
        owner[at] = (name, put) if isinstance(owner, Pairs) else put


def _change_layer(parts: Parts, random: Random) -> None:
    """A change of a layer that takes its tensors along, so that it is found further on."""
    layers = parts.header["layers"]
    layer = random.choice(layers)
    way = random.randrange(8)
    if way == 0:
        old, layer_name = f"{layer['name']}.".lstrip("."), _texts(random)
        layer.put("name", layer_name)
        for tensor in parts.tensors:
            if tensor.name.startswith((f"{old}mask", f"{old}flips")):
                tensor.name = f"{layer_name}.{tensor.name[len(old) :]}".lstrip(".")
    elif way == 1:
        layer.put("shape", random.sample(layer["shape"], len(layer["shape"])))
    elif way == 2:
        layer.put("shape", [*layer["shape"], 1] if random.random() < 0.5 else [1, *layer["shape"]])
    elif way == 3:  # no set bit, no byte, and as many edges as one likes
        layer.put("shape", [1 << random.randrange(40), 1 << random.randrange(25)][: random.randrange(1, 3)])
        mask = Pairs([("encoding", "ans"), ("kept", random.choice([0, *layer["shape"][:1]]))])
        layer.put("planes", Pairs([("mask", mask)]))
        parts.put(f"{layer['name']}.mask".lstrip("."), b"")
    elif way == 4:
        layer["planes"].put("flips", Pairs([("encoding", "ans"), ("kept", 0)]))
        parts.put(f"{layer['name']}.flips".lstrip("."), b"")
    elif way == 5:  # a coat more, now and then with a gap before it
        names = [name for name, _ in layer["planes"] if name != "flips"]
        kept = random.choice([0, layer["planes"][names[-1]]["kept"]])
        name = f"mask.{len(names) + (random.random() < 0.1)}"
        parts.put(f"{layer['name']}.{name}".lstrip("."), b"")
        layer["planes"].put(name, Pairs([("encoding", "ans"), ("kept", kept)]))
    elif way == 6:
        owner, name = layer[random.choice(["planes", "values"])], random.choice([_texts(random), "mask.01", "mask.64"])
        owner.put(name, owner.pop(random.randrange(len(owner)))[1])
    else:
        parts.header.put("folded", sorted({t.name.rpartition(".")[0] for t in parts.tensors if "weight" in t.name}))


def _change_plane(parts: Parts, random: Random, change_bytes: Callable[[bytes], bytes]) -> None:
    """Change the bytes of a plane: of `ans` mostly the first, which say how it is coded."""
    planes = [tensor for tensor in parts.tensors if "mask" in tensor.name or "flips" in tensor.name]
    tensor = random.choice(planes or parts.tensors)
    data, way = bytearray(tensor.data), random.randrange(8)
    if way < 3 and data:
        at = min(int(random.expovariate(0.2)), len(data) - 1)
        data[at] = random.choice([0, 1, 2, 3, 4, 5, 16, 64, 127, 128, 255, data[at] ^ 1 << random.randrange(8)])
    elif way == 3:
        data = data[: random.randrange(len(data) + 1)]
    elif way == 4:
        data += random.choice([b"\0", b"\1", random.randbytes(4), random.randbytes(random.randrange(40))])
    elif way == 5:
        data = bytearray(random.randbytes(1)) + data
    else:
        data = bytearray(change_bytes(bytes(data)))
    same = tensor.shape == [len(tensor.data)]
    tensor.data = bytes(data)
    if same:
        tensor.shape = [len(data)]


def _new_planes(parts: Parts, random: Random) -> None:
    """Planes that are right, coded with odds that no writer would choose; now and then damaged after that."""
    layer = random.choice(parts.header["layers"])
    shape = [int(size) for size in layer["shape"]]
    if random.random() < 0.3:
        shape = [random.choice([1, 2, 3, 5, 8, 33]) for _ in range(random.randrange(1, 5))]
    rows, cols = shape[0], int(np.prod(shape[1:], dtype=object))
    if not 1 <= rows * cols <= _MOST_EDGES:
        return
    layer.put("shape", shape)
    numbers = np.random.default_rng(random.getrandbits(32))
    planes = [numbers.random((rows, cols)) < random.choice([0, 0.01, 0.1, 0.5, 0.9, 1])]
    for _ in range(random.choice([0, 0, 0, 1, 3])):
        planes.append(planes[-1] & (numbers.random((rows, cols)) < random.choice([0, 0.3, 0.8, 1])))
    flips = planes[0] & (numbers.random((rows, cols)) < 0.5) if random.random() < 0.3 else None

    def levels(grid: Grid) -> Levels | None:
        if random.random() < 0.2:
            return None
        draws = random.choice([None, True, False])
        count = 0 if draws is None else random.choice([0, 1, 2, 20, 255])
        thresholds = np.sort(numbers.integers(1, random.choice([2, 9, 4096]), count))
        axes = [numbers.integers(0, random.choice([1, 2, 5, 16]), size).astype(np.uint8) for size in grid.sizes]
        own = axes[0], axes[1], axes[2]
        odds = numbers.integers(0, 65536, Levels.count(thresholds, own)).astype(np.uint16)
        drawn = None if draws is None else Draws(absolute=draws, generation=random.choice([0, 5, (1 << 22) - 1]))
        return Levels(draws=drawn, thresholds=thresholds, axes=own, odds=odds)

    encodings = [random.choice(["raw", "ans", "ans"]) for _ in range(len(planes) + 1)]
    set_planes(parts, layer, planes, flips=flips, encodings=encodings, levels=levels)


def _bytes(data: bytes, random: Random) -> bytes:
    """Change some bytes."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 4])):
        at, way = random.randrange(len(changed) + 1), random.randrange(5)
        if way == 0 and changed:
            changed[min(at, len(changed) - 1)] ^= 1 << random.randrange(8)
        elif way == 1:
            changed[at:at] = random.randbytes(random.choice([1, 1, 2, 8]))
        elif way == 2:
            del changed[at : at + random.choice([1, 1, 2, 8, 100])]
        elif way == 3:
            changed[at : at + 1] = bytes([random.choice([0, 1, 32, 48, 57, 91, 123, 125, 127, 128, 255])])
        else:
            other = random.randrange(len(changed) + 1)
            changed[at:at] = changed[other : other + random.randrange(1, 40)]
    return bytes(changed)
