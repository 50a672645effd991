"""What a ticket holds, and how two differ, as tables for people and in JSON's own types for programs."""

import math
from typing import Any

from rich import box
from rich.table import Table

from supermask.edges.overlap import Overlap
from supermask.networks.architecture import Architecture
from supermask.tickets.diff import Difference
from supermask.tickets.info import LayerInfo, TicketInfo

__all__ = ["diff_json", "diff_table", "inspect_json", "inspect_table"]


def inspect_json(info: TicketInfo) -> dict[str, Any]:
    """A ticket's description in JSON's own types; bytes, and bits where the name says so."""
    return {
        "file": info.path,
        "version": info.version,
        "seed": info.seed,
        "architecture": None if info.architecture is None else info.architecture.to_json(),
        "edges": info.edges,
        "kept": info.kept,
        "layers": [_layer_json(layer) for layer in info.layers],
        "tensors": [
            {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape), "bytes": tensor.bytes}
            for tensor in info.tensors
        ],
        "folded": list(info.folded),
        "narrowed": info.narrowed,
        "bytes": {
            "file": info.file_bytes,
            "masks": info.plane_bytes,
            "other_tensors": sum(tensor.bytes for tensor in info.tensors),
            "one_bit_an_edge": -(-info.edges // 8),
            "dense_float32": info.dense_bytes,
        },
        "entropy_bits": info.entropy,
        "bits_per_edge": info.bits_per_edge,
        "sha256": info.sha256,
    }


def _layer_json(layer: LayerInfo) -> dict[str, Any]:
    return {
        "name": layer.name,
        "index": layer.index,
        "shape": list(layer.shape),
        "weights": layer.weights,
        "generation": layer.generation,
        "edges": layer.edges,
        "kept": layer.kept,
        "planes": {
            name: {"kept": plane.kept, "bits": plane.bits, "encoding": plane.encoding, "bytes": plane.bytes}
            for name, plane in layer.planes.items()
        },
        "values": dict(layer.values),
        "encoding": layer.encoding,
        "bytes": layer.bytes,
        "entropy_bits": layer.entropy,
    }


def inspect_table(info: TicketInfo) -> Table:
    """A row a layer, and what the file is."""
    table = Table(box=box.SIMPLE_HEAD, title=info.path, title_justify="left", caption_justify="left")
    for heading in ("layer", "index", "shape", "weights"):
        table.add_column(heading)
    for heading in ("edges", "kept", "remaining", "bits an edge", "entropy", "bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("encoding")
    for layer in info.layers:
        generation = f", generation {layer.generation}" if layer.generation else ""
        table.add_row(
            layer.name or "(network)",
            str(layer.index),
            " x ".join(map(str, layer.shape)),
            f"{layer.weights} {layer.constant:.4g}{generation}",
            f"{layer.edges:,}",
            layer.selected,
            f"{layer.kept / layer.edges:.2%}",
            f"{8 * layer.bytes / layer.edges:.3f}",
            f"{layer.entropy / layer.edges:.3f}",
            f"{layer.bytes:,}",
            layer.encoding,
        )
    table.add_section()
    table.add_row(
        "all", "", "", "", f"{info.edges:,}", f"{info.kept:,}", f"{info.kept / info.edges:.2%}",
        f"{8 * info.plane_bytes / info.edges:.3f}", f"{info.entropy / info.edges:.3f}", f"{info.plane_bytes:,}", "",
    )  # fmt: skip
    table.caption = "\n".join(info.summary)
    return table


def diff_json(found: Difference) -> dict[str, Any]:
    """A difference in JSON's own types; null where there is no number."""

    def plain(one: Overlap) -> dict[str, Any]:
        return {
            "a": one.a,
            "b": one.b,
            "common": one.common,
            "overlap": None if math.isnan(one.ratio) else one.ratio,
            "expected": None if math.isnan(one.expected) else one.expected,
        }

    return {
        "same": found.same,
        "apart": found.apart,
        "layers": {name: plain(layer) for name, layer in found.layers.items()},
        "total": plain(found.total),
        "fields": {name: [_json(value) for value in values] for name, values in found.fields.items()},
        "tensors": {name: None if math.isnan(value) else value for name, value in found.tensors.items()},
    }


def diff_table(found: Difference, a: str, b: str) -> Table:
    """A row a layer, then what else differs."""
    table = Table(box=box.SIMPLE_HEAD, title=f"a: {a}\nb: {b}", title_justify="left", caption_justify="left")
    table.add_column("layer")
    for heading in ("kept a", "kept b", "common", "overlap", "expected"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = [*found.layers.items(), ("all", found.total)]
    for number, (name, layer) in enumerate(rows):
        if number == len(rows) - 1:
            table.add_section()
        table.add_row(
            name or "(network)", f"{layer.a:,}", f"{layer.b:,}", f"{layer.common:,}", f"{layer.ratio:.4f}",
            f"{layer.expected:.4f}",
        )  # fmt: skip
    lines = ["overlap: common edges over those of the smaller mask; expected: of independent masks"]
    lines += [f"{name}: {one} / {other}" for name, (one, other) in found.fields.items()]
    differing = {name: value for name, value in found.tensors.items() if value}
    lines += [
        f"other tensors: {len(differing)} of {len(found.tensors)} differ"
        + "".join(f"\n  {name}: {'not in both' if math.isnan(v) else f'by {v:.3g}'}" for name, v in differing.items())
    ]
    ends = "the same network" if found.same else f"layers of the same names and shapes; apart: {', '.join(found.apart)}"
    table.caption = "\n".join([*lines, ends])
    return table


def _json(value: Any) -> Any:
    return value.to_json() if isinstance(value, Architecture) else value
