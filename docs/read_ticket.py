"""Reads a ticket by ticket-format.md alone, in NumPy and the standard library: python docs/read_ticket.py FILE

It checks what would give another network; what else the page has a reader refuse, supermask does.
"""

import hashlib
import io
import json
import sys

import numpy as np

DTYPES = {"BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F16": "<f2", "F32": "<f4"}
DTYPES |= {"F64": "<f8", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}  # NumPy lacks the last three: their bits
spell = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def check(fine: bool, otherwise: str) -> None:
    if not fine:
        raise ValueError(otherwise)


def read(path: str) -> tuple[dict, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The header (layers as in version 3), the masked layers' weights, all other tensors (BF16 widened)."""
    content = np.fromfile(path, np.uint8).tobytes()
    start = 8 + int.from_bytes(content[:8], "little")
    stored, data, tensors = json.loads(content[8:start]), content[start:], {}
    header = json.loads(stored.pop("__metadata__", {}).get("supermask", "{}"))
    check(header.get("version") in (1, 2, 3), f"{path}: version {header.get('version')}, and 1 to 3 are known")
    digest = hashlib.sha256(f"{spell({key: header[key] for key in header if key != 'sha256'})}\n".encode())
    for name, entry in sorted(stored.items()):
        dtype, shape, raw = entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])]
        digest.update(f"{spell([name, dtype, shape])}\n".encode() + raw)
        values = np.frombuffer(raw, DTYPES[dtype])
        check(values.size == np.prod(shape, dtype=object), f"{path}: {name} has {values.size} elements, not {shape}")
        tensors[name] = (values if dtype != "BF16" else (values.astype("<u4") << 16).view("<f4")).reshape(shape)
    check(digest.hexdigest() == header["sha256"], f"{path}: sha256 {digest.hexdigest()}, not {header['sha256']}")
    for layer in header["layers"] if header["version"] < 3 else []:
        coats, flips, constant = layer.pop("coats"), layer.pop("flips", None), layer.pop("constant")
        if header["version"] == 1:
            coats = [{"kept": layer.pop("kept"), "encoding": layer.pop("encoding")}]
        layer["planes"] = {f"mask.{number}" if number else "mask": coat for number, coat in enumerate(coats)}
        layer["planes"] |= {"flips": flips} if flips else {}
        layer["values"] = {"constant": {"coding": "float32", "value": constant}}
    return header, {layer["name"]: weight(layer, tensors, header["seed"]) for layer in header["layers"]}, tensors


def weight(layer: dict, tensors: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """A layer's weight in float32, of its shape; its planes leave `tensors`."""
    rows, cols = layer["shape"][0], int(np.prod(layer["shape"][1:]))
    prefix, kind, generation = f"{layer['name']}.".lstrip("."), layer["weights"], layer["generation"]
    check([*layer["values"]] == ["constant"], f"{layer['name']}: values {[*layer['values']]}, and constant is known")
    value = layer["values"]["constant"]
    check(value["coding"] == "float32", f"{layer['name']}: coding {value['coding']!r}, and float32 is known")
    selected, coats, planes = np.ones((rows, cols), bool), np.zeros((rows, cols), np.float32), dict(layer["planes"])
    constant, flips = np.float32(value["value"]), planes.pop("flips", None)
    names = ["mask", *(f"mask.{number}" for number in range(1, len(planes)))]
    check({*names} == {*planes}, f"{layer['name']}: planes {sorted(planes)}, and mask, mask.1, ... and flips are known")
    for coat in names:
        selected = mask(tensors.pop(prefix + coat), planes[coat], selected, layer, seed)
        coats += selected
    if kind in ("signed_constant", "scaled_signed_constant"):
        signs = words(layer, seed, 0, generation, -(-cols // 32)).astype("<u4").view("u1")
        minus = np.unpackbits(signs, axis=1, count=cols, bitorder="little")
        if flips:
            minus ^= mask(tensors.pop(f"{prefix}flips"), flips, coats > 0, layer, seed)
        values = np.where(minus, -constant, constant)
    elif kind == "unsigned_constant":
        values = constant
    else:
        check(kind in ("kaiming_uniform", "kaiming_normal"), f"{layer['name']}: unknown weights {kind}")
        std, u = np.sqrt(2 / cols), (words(layer, seed, 1, generation, cols) >> 8) * 2.0**-24
        if kind == "kaiming_uniform":
            high = np.float32(np.sqrt(3) * std)
            values = -high + (high + high) * u.astype(np.float32)
        else:
            radius = np.float64(np.float32(std)) * np.sqrt(-2 * np.log(u[:, ::2] + 2.0**-24))
            turn = 2 * np.pi * u[:, 1::2]
            values = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=-1).astype(np.float32)
        values = values.reshape(rows, -1)[:, :cols]
    return np.where(coats > 0, values * coats, np.float32(0)).reshape(layer["shape"])


def mask(data: np.ndarray, plane: dict, where: np.ndarray, layer: dict, seed: int) -> np.ndarray:
    """A plane [rows, cols], False outside `where`: only those edges have bits."""
    count, kept = int(where.sum()), plane["kept"]
    if plane["encoding"] == "raw":
        check(len(data) == -(-count // 8), f"{layer['name']}: a raw plane of {len(data)} bytes for {count} bits")
        bits = np.unpackbits(data, count=count, bitorder="little")
    elif plane["encoding"] != "ans":
        raise ValueError(f"{layer['name']}: encoding {plane['encoding']!r}, and raw and ans are known")
    elif kept in (0, count):
        bits = np.full(count, kept > 0)
    else:
        stream, one = io.BytesIO(data.tobytes()), min(max((kept * 2**24 + count // 2) // count, 1), 2**24 - 1)
        ones = levels(stream, layer, seed)[where].tolist() if stream.read(1) == b"\1" else [one] * count
        bits = np.array(decode(stream.read(), ones))
    check(np.count_nonzero(bits) == kept, f"{layer['name']}: {np.count_nonzero(bits)} bits are set, kept is {kept}")
    selected = np.zeros_like(where)
    selected[where] = bits
    return selected


def levels(stream: io.BytesIO, layer: dict, seed: int) -> np.ndarray:
    """`ones` of every edge [rows, cols]; leaves the coded bits in the stream."""
    rows, cols = layer["shape"][0], int(np.prod(layer["shape"][1:]))
    level, top = np.zeros((rows, cols), int), 1
    if draws := stream.read(1)[0]:
        generation, count = int.from_bytes(stream.read(4), "little"), stream.read(1)[0]
        thresholds = np.frombuffer(stream.read(2 * count), "<u2")
        w = words(layer, seed, 2, generation, cols)[:, :cols].astype(int) >> 8
        bins = np.minimum(abs(w - 2**23) >> 11, 4095) if draws == 1 else w >> 12
        level, top = np.searchsorted(thresholds, bins, side="right"), 1 + count
    column, positions = np.arange(cols), cols // (*layer["shape"], 1)[1]
    for index in (np.arange(rows)[:, None], column // positions, column % positions):
        width, count = stream.read(1)[0], int(index.max()) + 1
        packed = int.from_bytes(stream.read(-(-count * width // 8)), "little")
        numbers = np.array([(packed >> width * number) % 2**width for number in range(count)])
        level, top = level + numbers[index], top + int(numbers.max())
    return 256 * np.frombuffer(stream.read(2 * top), "<u2").astype(int)[level] + 128


def decode(data: bytes, ones: list[int]) -> list[bool]:
    """Asymmetric numeral systems: a bit for each of `ones`, its odds out of 2^24."""
    stack, state, bits = np.frombuffer(data + bytes(-len(data) % 4), "<u4").tolist(), 0, []
    for one in ones:
        while state < 2**32 and stack:
            state = state << 32 | stack.pop()
        quantile, zero = state % 2**24, 2**24 - one
        bits.append(quantile >= zero)
        state = (state >> 24) * one + quantile - zero if bits[-1] else (state >> 24) * zero + quantile
    check(not state and not stack, "coded bits are not used up")
    return bits


def words(layer: dict, seed: int, purpose: int, generation: int, count: int) -> np.ndarray:
    """Philox-4x32-10: at least the first `count` words of each row of a layer, in uint64, whole calls."""
    c0, c1 = np.arange(-(-count // 4), dtype=np.uint64), np.arange(layer["shape"][0], dtype=np.uint64)[:, None]
    c2, c3 = np.uint64(layer["index"]), np.uint64(purpose + 256 * generation)
    k0, k1 = seed % 2**32, seed // 2**32
    for _ in range(10):
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b % 2**32, (a >> 32) ^ c3 ^ k1, a % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack([c0, c1, c2, c3], axis=-1).reshape(len(c0), -1)


if __name__ == "__main__":
    header, weights, _ = read(sys.argv[1])
    for layer in header["layers"]:
        planes = sorted(layer["planes"].items(), key=lambda plane: (plane[0] == "flips", len(plane[0]), plane[0]))
        said = " ".join(f"{plane['kept']} {plane['encoding']}" for _, plane in planes)
        print(layer["name"], layer["shape"], said, weights[layer["name"]].sum(dtype=float))
