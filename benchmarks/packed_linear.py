"""Rows of x times a 4096 x 4096 layer of one bit an edge on CPU, against dense products and ggml's ternary one.

    python -m benchmarks.packed_linear --threads 2 --ggml ggml/build/bin --json packed_linear.json

`packed` is a SupermaskLinear of a loaded ticket; `packed, compiled` is what torch.compile makes of
it without the C extension; `materialise` makes the whole matrix from mask and signs, then multiplies, in memory that is
reused. The sweep holds the rule of kernels/masked_mm/cpu.py against materialising at every number of rows. A timing is
of thirty calls in a row where rows are few, so what fits the caches is found there; in the cases called `cold` it is
one call between the others', which have streamed their weights through the caches meanwhile.

TQ2_0 (2.06 bits a weight, inputs rounded to 8 bits) is built from the copy of ggml in the source package of
llama-cpp-python:

    pip install scikit-build-core
    pip download llama-cpp-python==0.3.36 --no-deps --no-binary :all: --no-build-isolation
    tar xzf llama_cpp_python-0.3.36.tar.gz
    cmake -S llama_cpp_python-0.3.36/vendor/llama.cpp -B ggml/build -DCMAKE_BUILD_TYPE=Release \\
        -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \\
        -DLLAMA_BUILD_SERVER=OFF
    cmake --build ggml/build --target ggml
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._ggml import Ggml
from benchmarks._report import Comparison, Options, Report, command
from benchmarks._timing import interleaved
from supermask.edges.packed import PackedEdges
from supermask.kernels.base import native
from supermask.kernels.base.bits import pack
from supermask.kernels.base.planes import Planes
from supermask.kernels.masked_mm.cpu import masked_mm_traced
from supermask.kernels.packed_weight.op import packed_weight
from supermask.networks.layers import SupermaskLinear
from supermask.training.memory import keep_freed_memory

CONSTANT = 0.02
FEW = 8  # rows of x whose product is over in about a millisecond


@dataclass(frozen=True, kw_only=True)
class PackedLinearOptions(Options):
    size: int = 4096
    """inputs and outputs of the layer, a multiple of 256"""
    rows: tuple[int, ...] = (1, 8, 64)
    """rows of x that all rivals multiply"""
    sweep: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """rows of x for which the rule is held against materialising"""
    ggml: Path | None = None
    """folder of ggml's shared libraries; without it TQ2_0 does not run"""


class Layer:
    """Half of the edges, packed as a ticket's, and dense."""

    def __init__(self, size: int) -> None:
        kept = torch.rand(size, size, generator=torch.Generator().manual_seed(0)) < 0.5
        self.edges = PackedEdges(
            (size, size), pack(kept), seed=0, layer=0, weights="signed_constant", constant=CONSTANT
        )
        self.packed = SupermaskLinear(size, size, edges=self.edges).eval()
        self.size, self.weight = size, self.edges(torch.float32)

    def traced(self, x: Tensor) -> Tensor:
        return masked_mm_traced(x, Planes(self.edges.packed[None], self.edges.theta(), None), None)

    def materialise(self, x: Tensor) -> Tensor:
        return F.linear(x, packed_weight(self.edges.packed, self.edges.shape, self.edges.theta(), x.dtype))


def check(name: str, found: Tensor, x: Tensor, weight: Tensor, allowed: float) -> None:
    """Raise unless `found` is x W^T, within `allowed` as a fraction of its norm."""
    exact = x.double() @ weight.double().t()
    wrong = float((found.double() - exact).norm() / exact.norm())
    if not wrong <= allowed:
        raise RuntimeError(f"{name} of {len(x)} rows differs from the product in float64 by {wrong:.2g} of its norm")


def rivals(layer: Layer, n: int, ggml: Ggml | None) -> dict[str, Callable[[], object]]:
    """What is timed for `n` rows of x, everything checked."""
    x = torch.randn(n, layer.size, generator=torch.Generator().manual_seed(n))
    narrow, narrow_weight = x.bfloat16(), layer.weight.bfloat16()
    check("packed", layer.packed(x), x, layer.weight, 2e-6)
    check("packed bfloat16", layer.packed(narrow), narrow, layer.weight, 4e-3)
    check("materialise", layer.materialise(x), x, layer.weight, 2e-6)
    check("materialise bfloat16", layer.materialise(narrow), narrow, layer.weight, 4e-3)
    found: dict[str, Callable[[], object]] = {
        "packed": lambda: layer.packed(x),
        "packed, x in bfloat16": lambda: layer.packed(narrow),
    }
    if native.usable():
        y, place = torch.empty(n, layer.size), (n, layer.size, layer.size)
        tensors = x, layer.edges.codes, layer.edges.constant, None, y
        found["packed, its kernel alone"] = lambda: native.call("sm_masked_mm", "ppppplll", *tensors, *place)
        found["packed, its kernel alone"]()
        check("the kernel alone", y, x, layer.weight, 2e-6)
    if n == 1:
        compiled = torch.compile(layer.traced, fullgraph=True)
        check("compiled", compiled(x), x, layer.weight, 2e-6)
        found["packed, compiled without the extension"] = lambda: compiled(x)
    found |= {
        "dense float32": lambda: F.linear(x, layer.weight),
        "dense bfloat16": lambda: F.linear(narrow, narrow_weight),
        "materialise, then dense float32": lambda: layer.materialise(x),
    }
    if ggml is not None:
        ternary = ggml.product(layer.weight, x, torch.get_num_threads())
        check("TQ2_0", ternary(), x, layer.weight, 1e-2)
        found["ggml TQ2_0"] = ternary
    return found


def run(options: PackedLinearOptions) -> Report:
    device = torch.device("cpu")
    keep_freed_memory()
    layer = Layer(options.size)
    ggml = None if options.ggml is None else Ggml(options.ggml)
    checked = "products equal those in float64 to 2e-6 of the norm in float32, 4e-3 in bfloat16, 1e-2 by TQ2_0"
    comparisons = []
    for n in options.rows:
        calls = rivals(layer, n, ggml)
        case = f"{n} x {options.size} by {options.size} x {options.size}"
        for name, streak in ((case, 30), (f"{case}, cold", 1)) if n <= FEW else ((case, 1),):
            samples = interleaved(calls, rounds=options.rounds_of(21), warmup=3, device=device, calls=streak)
            comparisons.append(Comparison(case=name, base="packed", seconds=samples, checked=checked))
    for dtype in (torch.float32, torch.bfloat16):
        for n in options.sweep:
            x = torch.randn(n, options.size, generator=torch.Generator().manual_seed(n)).to(dtype)
            check("packed", layer.packed(x), x, layer.weight, 2e-6 if dtype is torch.float32 else 4e-3)
            pair = {"materialise": lambda x=x: layer.materialise(x), "packed": lambda x=x: layer.packed(x)}
            samples = interleaved(pair, rounds=options.rounds_of(11), device=device)
            case = f"rule, {n} rows, {str(dtype).removeprefix('torch.')}"
            comparisons.append(Comparison(case=case, base="materialise", seconds=samples, checked=checked))
    skipped = [] if native.usable() else [f"tables: {native.why_not()}"]
    if ggml is None:
        skipped.append("ggml TQ2_0: no --ggml folder of its libraries given")
    held = {name: tensor for name, tensor in layer.edges.named_buffers() if tensor.numel() > 1000}
    bits = {name: 8 * tensor.nbytes / options.size**2 for name, tensor in held.items()}
    return Report(
        title=f"y = x W^T of {options.size} x {options.size} from packed bits",
        comparisons=tuple(comparisons),
        skipped=tuple(skipped),
        facts={"edges": options.size**2, "remaining": 0.5, "bits_an_edge": bits},
    )


if __name__ == "__main__":
    command(run)
