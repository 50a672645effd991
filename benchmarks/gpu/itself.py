"""Whether the timer can be believed: graphs outlive what they were captured from, what cannot be captured does no harm,
and sizes that are tried reach the launch."""

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.drawn import normals, random_bits
from benchmarks.gpu.timer import Timer
from supermask.kernels.base.launch import interpreted, launcher
from supermask.kernels.base.sizes import tried
from supermask.kernels.base.theta import Theta

__all__ = ["check_timer", "launched"]

NUMBERS = 1 << 20
TRIED = {"BLOCK_M": 32, "BLOCK_N": 64, "num_warps": 4, "num_stages": 1}


def check_timer(bench: Bench) -> dict[str, Any]:
    """Raise unless all of it holds on this device."""
    device, timer = bench.device, bench.timer
    _replays_own_their_memory(timer, device)
    how = _no_harm(timer, device)
    _sizes_are_tried(device)
    said = f"replays keep their memory; a wait for the device was timed as {how}; sizes that are tried are launched"
    return {"how": how, "lines": [said]}


def _replays_own_their_memory(timer: Timer, device: torch.device) -> None:
    """After everything else is dropped, and its memory is given to others."""
    result = torch.zeros(NUMBERS, device=device)

    def captured() -> Callable[[], object]:
        source = torch.ones(NUMBERS, device=device)
        return timer.capture(lambda: result.copy_(source * 3))

    replay = captured()
    gc.collect()
    others = [torch.full((NUMBERS,), 7.0, device=device) for _ in range(8)]
    result.zero_()
    replay()
    timer.wait()
    if not bool((result == 3).all()) or not all(bool((other == 7).all()) for other in others):
        raise RuntimeError("a replay reads or writes memory that belongs to others by then")


def _no_harm(timer: Timer, device: torch.device) -> str:
    """A call that waits for the device cannot be captured; random numbers, memory and captures are as before."""
    numbers = torch.ones(8, device=device)
    waits = timer.program([lambda: float(numbers.sum())])
    drawn: Tensor = torch.rand(8, device=device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    timer.capture(lambda: numbers.add_(1))()
    timer.wait()
    if not bool(((drawn >= 0) & (drawn < 1)).all()):
        raise RuntimeError("after a capture that failed the default generator draws no numbers")
    return waits.how


def _sizes_are_tried(device: torch.device) -> None:
    grad = normals(65, 130, device=device).bfloat16()
    mask, theta = random_bits(130, 130, 0, device)[None], Theta(7, 0, 0, torch.ones(1, device=device))

    def backward() -> object:
        return torch.ops.supermask.masked_mm_backward(grad, mask, theta.constant, None, None, *theta.counter(), 130)

    with tried("masked_mm", TRIED):
        found = launched(backward)
    on_triton = device.type == "cuda" or interpreted()
    if on_triton and not any(TRIED.items() <= meta.items() for *_, meta in found):
        raise RuntimeError(f"of the sizes {TRIED} that were tried, these reached the launch: {found}")


def launched(call: Callable[[], object]) -> list[tuple[tuple[int, ...], list[int], dict[str, Any]]]:
    """Grids, whole numbers and constexprs of what `call` would launch; nothing is."""
    found: list[tuple[tuple[int, ...], list[int], dict[str, Any]]] = []

    def note(_: Any, grid: tuple[int, ...], args: tuple[Any, ...], meta: dict[str, Any]) -> None:
        found.append((grid, [arg for arg in args if isinstance(arg, int)], dict(meta)))

    with launcher(note):
        call()
    return found
