"""Every kernel against the CPU, before anything is timed.

Each exact kernel runs on a hundred fresh inputs, of shapes from one edge to a million, and gives the CPU's bits on all
of them; each product and convolution errs at most twice as much as PyTorch's own, and gives the same bits each time.
Kernels compile as they are called, so shapes take dtypes in turn, and a case whose time is spent says what it left out.
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.bench import Bench, Case
from benchmarks.gpu.errors import check_masked_conv2d, check_masked_mm
from benchmarks.gpu.exact import EXACT, differing, normal_ulps
from benchmarks.gpu.exact import Case as Layer

__all__ = ["CheckSizes", "cases"]

SHOWN = 5  # of what is wrong
ULPS = 2
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class CheckSizes:
    """What is compared."""

    inputs: int = 100
    """Fresh ones of each exact kernel."""
    shapes: tuple[tuple[int, int], ...] = (
        (1, 1), (129, 257), (10, 512), (64, 27), (7, 100_003), (512, 2048), (33, 129), (256, 2304), (1000, 31),
        (3, 4096),
    )  # fmt: skip
    """Rows and cols, in turn."""
    layers: tuple[tuple[int, int], ...] = ((1, 1), (129, 257), (512, 2048), (2048, 4096))
    """Rows and cols of products."""
    batches: tuple[int, ...] = (1, 8, 64, 100)
    """Rows of x."""
    channels: tuple[int, ...] = (3, 64, 192)
    taps: tuple[tuple[int, int, int], ...] = ((1, 1, 1), (3, 1, 1), (3, 2, 2), (3, 2, 1), (7, 2, 1))
    """Kernel, stride and groups."""
    size: int = 14
    """Height and width of images."""


def cases(sizes: CheckSizes) -> list[Case]:
    """Exact kernels, then what rounds."""
    exact = [Case(name=f"{name}, bits", run=partial(_exact, name=name, sizes=sizes)) for name in EXACT]
    products = [
        Case(name=f"masked_mm, {rows} x {cols}, error", run=partial(_products, rows=rows, cols=cols, sizes=sizes))
        for rows, cols in sizes.layers
    ]
    convolutions = [
        Case(name=f"masked_conv2d, {wide} channels, error", run=partial(_convolutions, channels=wide, sizes=sizes))
        for wide in sizes.channels
    ]
    return [*exact, Case(name="normal, ulps", run=partial(_normal, sizes=sizes)), *products, *convolutions]


def _spent(done: int, all_: int, what: str) -> dict[str, Any]:
    """What a case says that had to stop; nothing of one that came to its end."""
    if done == all_:
        return {}
    return {"left out": f"budget: {done} of {all_} {what} checked (--seconds, --match)"}


def _exact(bench: Bench, name: str, sizes: CheckSizes) -> dict[str, Any]:
    """On all inputs, whatever some of them give, while there is time; the largest shape three times."""
    wrong: list[str] = []
    edges, failed, done = 0, 0, 0
    for seed in range(sizes.inputs):
        if done and time.monotonic() > bench.until:
            break
        rows, cols = sizes.shapes[seed % len(sizes.shapes)]
        found = differing(name, Layer(device=bench.device, rows=rows, cols=cols, seed=seed))
        failed += bool(found)
        wrong += found
        edges += rows * cols
        done += 1
    rows, cols = max(sizes.shapes, key=lambda shape: shape[0] * shape[1])
    wrong += differing(name, Layer(device=bench.device, rows=rows, cols=cols, seed=sizes.inputs), times=3)
    if wrong:
        raise RuntimeError(f"{failed} of {done} inputs differ, {len(wrong)} results: {'; '.join(wrong[:SHOWN])}")
    said = f"{done} inputs, {edges / 1e6:.3g} M edges, and one three times: the CPU's bits"
    return {"inputs": done, "edges": edges, "lines": [said]} | _spent(done, sizes.inputs, "inputs")


def _normal(bench: Bench, sizes: CheckSizes) -> dict[str, Any]:
    apart, done = 0, 0
    for seed in range(sizes.inputs):
        if done and time.monotonic() > bench.until:
            break
        rows, cols = sizes.shapes[seed % len(sizes.shapes)]
        apart = max(apart, normal_ulps(Layer(device=bench.device, rows=rows, cols=cols, seed=seed)))
        done += 1
    if apart > ULPS:
        raise RuntimeError(f"{apart} units in the last place from the CPU's numbers, {ULPS} are allowed")
    found = {"inputs": done, "ulps": apart, "lines": [f"{done} inputs, at most {apart} ulp apart"]}
    return found | _spent(done, sizes.inputs, "inputs")


def _products(bench: Bench, rows: int, cols: int, sizes: CheckSizes) -> dict[str, Any]:
    """Every number of rows of x in one dtype, the next layer in another."""
    found: dict[str, float] = {}
    first = sizes.layers.index((rows, cols))
    for index, batch in enumerate(sizes.batches):
        if found and time.monotonic() > bench.until:
            break
        dtype = DTYPES[(first + index) % len(DTYPES)]
        layer = Layer(device=bench.device, rows=rows, cols=cols, seed=batch)
        found[f"{str(dtype).removeprefix('torch.')}, {batch} rows"] = check_masked_mm(layer, dtype, batch)
    return _over(found) | _spent(len(found), len(sizes.batches), "numbers of rows")


def _convolutions(bench: Bench, channels: int, sizes: CheckSizes) -> dict[str, Any]:
    """Every window in one dtype, for the next number of channels in another."""
    found: dict[str, float] = {}
    first = sizes.channels.index(channels)
    windows = [(index, taps) for index, taps in enumerate(sizes.taps) if channels % taps[2] == 0]
    for index, (kernel, stride, groups) in windows:
        if found and time.monotonic() > bench.until:
            break
        layer = Layer(device=bench.device, rows=2 * channels, cols=channels // groups * kernel**2, seed=kernel)
        dtype = DTYPES[(first + index) % len(DTYPES)]
        name = f"{str(dtype).removeprefix('torch.')}, {kernel}x{kernel} stride {stride} groups {groups}"
        found[name] = check_masked_conv2d(layer, dtype, sizes.size, kernel, stride, groups)
    return _over(found) | _spent(len(found), len(windows), "windows")


def _over(found: dict[str, float]) -> dict[str, Any]:
    worst = max(found, key=lambda name: found[name])
    said = (
        f"{len(found)} cases, each the same bits three times; at most {found[worst]:.2f} of PyTorch's error ({worst})"
    )
    return {"error over PyTorch's": found, "lines": [said]}
