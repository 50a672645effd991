"""Bounds on the time of each kernel, from data sheets and from the kernels' own machine code: docs/roofline.md.

    python -m benchmarks.roofline

Nothing is measured here. A kernel moves some bytes, multiplies some numbers and makes some weights; none of the three
can be faster than the chip's published rate, so the slowest of them bounds the whole from below. How many integer
instructions a weight takes is read from the newest table of docs/resources (benchmarks/aot/stored.py).
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from benchmarks.aot.stored import DOCS, Stored, newest

PAGE = DOCS / "roofline.md"
HEAD = """\
# Bounds from data sheets

Written by `python -m benchmarks.roofline`. **These are bounds, not measurements**: no kernel here has been timed on
any of these chips. A cell is the time in microseconds that a kernel cannot stay below, and what sets it: *memory*,
bytes over the memory's bandwidth; *matrix*, operations over the dense bf16 rate; *integer*, the integer instructions
that make the weights over the chip's rate of them. Launches, caches, imperfect overlap and everything else that costs
time come on top, for the dense layer (bf16 weights in memory) as for the masked one (one bit an edge, signs from the
seed).

Integer instructions an edge are those of [Triton TRITON](resources/triton-TRITON.md), all that the main loop holds,
addresses and all; a weight is made once for every BLOCK_M rows of x, and of the kernel's configurations the best
counts. A convolution of several taps reads mask and sign, two bits an edge, which a pass of its own lays out (not
counted). Each weight, input and output is moved once, activations in bf16.
"""


@dataclass(frozen=True, kw_only=True)
class Chip:
    """Published rates."""

    target: str
    """Of benchmarks.aot."""
    matrix: float
    """Dense bf16 operations a second; a multiply-add is two."""
    bandwidth: float
    """Bytes of device memory a second."""
    integer: float
    """32-bit integer instructions of one thread a second."""
    source: str


CHIPS = {
    "A100": Chip(
        target="sm_80",
        matrix=312e12,
        bandwidth=2.039e12,
        integer=19.5e12 / 2,
        source="NVIDIA, A100 80GB SXM data sheet (bf16, bandwidth); NVIDIA A100 white paper (INT32 19.5 TOPS, in which "
        "a multiply-add counts twice: 108 SMs x 64 x 1.41 GHz)",
    ),
    "H100": Chip(
        target="sm_90",
        matrix=989.4e12,
        bandwidth=3.35e12,
        integer=33.5e12 / 2,
        source="NVIDIA, H100 SXM data sheet (bf16 without sparsity, bandwidth); NVIDIA H100 white paper (INT32 33.5 "
        "TOPS, in which a multiply-add counts twice: 132 SMs x 64 x 1.98 GHz)",
    ),
    "MI300X": Chip(
        target="gfx942",
        matrix=1307.4e12,
        bandwidth=5.3e12,
        integer=304 * 64 * 2.1e9,
        source="AMD, Instinct MI300X data sheet (bf16 without sparsity, bandwidth, 304 compute units, 2.1 GHz); AMD "
        "CDNA3 white paper (64 lanes a compute unit)",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One matrix product: `positions` rows of x (for a convolution, output positions) by rows x cols edges."""

    name: str
    rows: int
    cols: int
    positions: int
    inputs: int
    """Numbers read."""
    count: int = 1
    """Layers of this shape in the network."""
    kernel: str = "masked_mm"
    variants: str = r"bf16, seed, \d+ rows"
    """Of the kernel, those that can run the layer: a pattern."""
    bits: int = 1
    """An edge, as the kernel reads them."""

    @property
    def edges(self) -> int:
        return self.rows * self.cols

    @property
    def operations(self) -> int:
        return 2 * self.edges * self.positions

    def bytes(self, per_edge: float) -> float:
        """Each weight, input and output once, activations in 16 bits."""
        return per_edge * self.edges + 2 * (self.inputs + self.positions * self.rows)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Seconds below which a kernel cannot stay, and what holds it up."""

    seconds: float
    by: str


def bound(chip: Chip, *, bytes: float, operations: float = 0.0, instructions: float = 0.0) -> Bound:
    """Of a kernel that moves, multiplies and computes so much."""
    parts = {
        "memory": bytes / chip.bandwidth,
        "matrix": operations / chip.matrix,
        "integer": instructions / chip.integer,
    }
    by = max(parts, key=lambda name: parts[name])
    return Bound(seconds=parts[by], by=by)


def dense(layer: Layer, chip: Chip) -> Bound:
    """The same layer with its weights in memory, in bf16."""
    return bound(chip, bytes=layer.bytes(2), operations=layer.operations)


def masked(layer: Layer, chip: Chip, rows: Iterable[dict[str, Any]]) -> Bound:
    """From one bit an edge: the best of the kernel's bf16 configurations that draws signs from the seed.

    A weight is made once for every BLOCK_M rows of x.

    Raises:
        LookupError: the table of resources has no such configuration.
    """
    found = []
    for row in rows:
        block = re.search(r"\bBLOCK_M=(\d+)", row["config"])
        if _runs(row, layer, chip) and block is not None:
            made = layer.edges * math.ceil(layer.positions / int(block[1]))
            instructions = made * row["integer_per_edge"]
            found.append(
                bound(chip, bytes=layer.bytes(layer.bits / 8), operations=layer.operations, instructions=instructions)
            )
    if not found:
        raise LookupError(f"docs/resources has no configuration {layer.variants!r} of {layer.kernel} for {chip.target}")
    return min(found, key=lambda one: one.seconds)


def _runs(row: dict[str, Any], layer: Layer, chip: Chip) -> bool:
    """Whether a row of the table is of a configuration that can run the layer on the chip."""
    return (
        row["kernel"] == layer.kernel
        and row["target"] == chip.target
        and re.fullmatch(layer.variants, row["variant"]) is not None
    )


def mlp(batch: int, width: int = 4096) -> list[Layer]:
    """A square layer of an MLP."""
    return [
        Layer(name=f"{width} x {width}, batch {batch}", rows=width, cols=width, positions=batch, inputs=batch * width)
    ]


def resnet50(batch: int) -> list[Layer]:
    """The distinct layers of torchvision's ResNet-50 on 224 x 224 images, in the order of the network."""
    import torchvision

    with torch.device("meta"):
        model = torchvision.models.resnet50()
    found: dict[tuple[Any, ...], Layer] = {}
    counts: dict[tuple[Any, ...], int] = {}

    def note(module: nn.Conv2d | nn.Linear, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        (x,) = inputs
        of = (*module.weight.shape, *x.shape[2:], *getattr(module, "stride", ()))
        counts[of] = counts.get(of, 0) + 1
        weight = module.weight
        rows = weight.shape[0]
        plain: dict[str, Any] = {
            "rows": rows,
            "cols": weight[0].numel(),
            "positions": output.numel() // rows,
            "inputs": x.numel(),
        }
        found[of] = Layer(name=f"{weight.shape[1]} to {rows}, linear", **plain)
        if isinstance(module, nn.Conv2d):
            (size, _), (stride, _) = module.kernel_size, module.stride
            stepping = f", stride {stride}" if stride > 1 else ""
            by_taps = size > 1 and weight.shape[1] > 16  # as kernels/masked_conv2d/gpu.py has it
            found[of] = Layer(
                name=f"{weight.shape[1]} to {rows}, {size}x{size}{stepping}, {x.shape[2]}x{x.shape[3]}",
                kernel="masked_conv2d",
                variants=f"bf16, {size}x{size}, codes" if by_taps else f"bf16, seed, {size}x{size}",
                bits=2 if by_taps else 1,
                **plain,
            )

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(note)
    model.eval()(torch.empty(batch, 3, 224, 224, device="meta"))
    return [replace(layer, count=counts[of]) for of, layer in found.items()]


def _cell(one: Bound) -> str:
    return f"{one.seconds * 1e6:.3g} {one.by}"


def _products(layers: Sequence[Layer], rows: Sequence[dict[str, Any]]) -> list[str]:
    heads = [f"{name} {what}" for name in CHIPS for what in ("dense", "masked")]
    first = ("layer", "layers", "GFLOP", "MB dense", "MB masked", "FLOP/byte dense", "FLOP/byte masked")
    lines = [f"| {' | '.join([*first, *heads])} |", f"|---|{'---:|' * (len(first) - 1 + len(heads))}"]
    totals = dict.fromkeys(heads, 0.0)
    for layer in layers:
        moved, kept = layer.bytes(2), layer.bytes(layer.bits / 8)
        cells = [
            layer.name,
            str(layer.count),
            f"{layer.operations / 1e9:.3g}",
            f"{moved / 1e6:.3g}",
            f"{kept / 1e6:.3g}",
            f"{layer.operations / moved:.3g}",
            f"{layer.operations / kept:.3g}",
        ]
        for name, chip in CHIPS.items():
            for what, one in (("dense", dense(layer, chip)), ("masked", masked(layer, chip, rows))):
                cells.append(_cell(one))
                totals[f"{name} {what}"] += layer.count * one.seconds
        lines.append(f"| {' | '.join(cells)} |")
    if len(layers) > 4:
        edges = sum(layer.count for layer in layers)
        sums = (f"{seconds * 1e6:.4g}" for seconds in totals.values())
        lines.append(f"| all, one after the other | {edges} | | | | | | {' | '.join(sums)} |")
    return lines


def _passes(rows: Sequence[dict[str, Any]], edges: int) -> list[str]:
    """Kernels that go over a layer's edges, one variant a line."""
    lines = [f"| kernel | variant | bytes an edge | {' | '.join(CHIPS)} |", f"|---|---|---:|{'---:|' * len(CHIPS)}"]
    first: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if not row["kernel"].startswith("masked_") and row["bytes_per_edge"] is not None:
            first.setdefault((row["kernel"], row["variant"]), {}).setdefault(row["target"], row)
    for (kernel, variant), of in first.items():
        cells = []
        for chip in CHIPS.values():
            row = of[chip.target]
            moved, made = edges * row["bytes_per_edge"], edges * row["integer_per_edge"]
            cells.append(_cell(bound(chip, bytes=moved, instructions=made)))
        moved_per_edge = of[next(iter(CHIPS.values())).target]["bytes_per_edge"]
        lines.append(f"| {kernel} | {variant} | {moved_per_edge:.4g} | {' | '.join(cells)} |")
    return lines


def page(resources: Stored) -> str:
    """docs/roofline.md, from a table of resources."""
    rows = resources.rows
    edges = sum(layer.count * layer.edges for layer in resnet50(1))
    chips = (
        f"| {name} | {of.matrix / 1e12:.4g} | {of.bandwidth / 1e12:.4g} | {of.integer / 1e12:.3g} | {of.source} |"
        for name, of in CHIPS.items()
    )
    momentum = (f"{name} {bound(chip, bytes=20 * edges).seconds * 1e6:.3g}" for name, chip in CHIPS.items())
    images = (
        line
        for batch in (1, 64)
        for line in (f"## ResNet-50, 224 x 224, batch {batch}", "", *_products(resnet50(batch), rows), "")
    )
    return "\n".join(
        [
            *HEAD.replace("TRITON", resources.triton).splitlines(),
            "",
            "| chip | bf16 TFLOP/s | TB/s | integer, 10^12/s | from |",
            "|---|---:|---:|---:|---|",
            *chips,
            "",
            "## A 4096-wide MLP",
            "",
            *_products([layer for batch in (1, 8, 64, 4096) for layer in mlp(batch)], rows),
            "",
            *images,
            f"## Passes over the edges of ResNet-50 ({edges / 1e6:.1f} M)",
            "",
            "Selection, weights from scores, gradients of scores and the rest, over all edges. The optimiser of",
            f"dense training with momentum moves 20 bytes an edge: {', '.join(momentum)}.",
            "",
            *_passes(rows, edges),
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(newest()))
