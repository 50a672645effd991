"""What rounds (products, convolutions) against float64: it may err twice as much as PyTorch's own, no more.

Each is also called again on the same inputs, and gives the same bits: no sum's order is left to chance.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.exact import Case, poisoned, torch_path
from supermask.kernels.masked_conv2d.op import masked_conv2d
from supermask.kernels.masked_mm.op import masked_mm
from supermask.kernels.packed_weight.op import packed_weight

__all__ = ["check_masked_conv2d", "check_masked_mm", "check_near", "within"]

CPU = torch.device("cpu")


def within(name: str, found: Tensor, theirs: Tensor, truth: Tensor) -> float:
    """The error of `found` over that of `theirs`, PyTorch's own result in the same dtype.

    Raises:
        RuntimeError: more than twice as much, or NaN.
    """
    error, allowed = ((t.detach().cpu().double() - truth).abs().max() for t in (found, theirs))
    # Where PyTorch happens to hit the nearest number everywhere, half a unit in the last place is still no error.
    least = torch.finfo(found.dtype).eps * truth.abs().max() / 2
    if not error <= 2 * allowed + least:
        raise RuntimeError(f"{name} errs by {float(error):.3g}; PyTorch's own product by {float(allowed):.3g}")
    return float(error / torch.maximum(allowed, least).clamp(min=1e-300))


def check_near(name: str, found: Tensor, truth: Tensor, allowed: float = 1e-2) -> None:
    """Raise unless `found` is `truth` up to `allowed` as a fraction of its norm: before something is timed."""
    wrong = float((found.double() - truth).norm() / truth.norm())
    if not wrong <= allowed:
        raise RuntimeError(f"{name} differs from the product in float64 by {wrong:.2g} of its norm")


def _again(name: str, call: Callable[[], tuple[Tensor, ...]], times: int = 3) -> tuple[Tensor, ...]:
    """What `call` gives.

    Raises:
        RuntimeError: it does not give the same bits each time.
    """
    with poisoned():
        first = [t.detach() for t in call()]
        for _ in range(times - 1):
            for a, b in zip(first, call(), strict=True):
                if not torch.equal(a.contiguous().view(torch.uint8), b.detach().contiguous().view(torch.uint8)):
                    raise RuntimeError(f"{name} gives other bits when it is called again on the same inputs")
    return tuple(first)


def _weights(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """For PyTorch on the device, in `dtype`, and in float64 on the CPU."""
    cpu = case.on(CPU)
    with torch_path():
        exact = packed_weight(cpu.mask(), (case.rows, case.cols), cpu.theta(), torch.float64)
    return exact.to(case.device, dtype), exact


def check_masked_mm(case: Case, dtype: torch.dtype, batch: int) -> float:
    """How much y and the gradient of x err over PyTorch's, the larger.

    Raises:
        RuntimeError: more than twice as much, or not the same bits each time.
    """
    weight, exact = _weights(case, dtype)
    x = case.reals(batch, case.cols, index=5).to(dtype).requires_grad_()
    grad = case.reals(batch, case.rows, index=6).to(dtype)
    mask, theta = case.mask(), case.theta()
    name = f"masked_mm, {batch} rows by {case.rows} x {case.cols}, {dtype}"

    def both() -> tuple[Tensor, ...]:
        y = masked_mm(x, mask, theta)
        return y, *torch.autograd.grad(y, x, grad)

    y, dx = _again(name, both)
    return max(
        within(name, y, F.linear(x, weight), x.detach().cpu().double() @ exact.T),
        within(f"gradient of {name}", dx, grad @ weight, grad.cpu().double() @ exact),
    )


def check_masked_conv2d(case: Case, dtype: torch.dtype, size: int, kernel: int, stride: int, groups: int) -> float:
    """As `check_masked_mm`; `case.cols` are kernel^2 times the channels of a group."""
    weight, exact = _weights(case, dtype)
    channels = case.cols // kernel**2
    shape = case.rows, channels, kernel, kernel
    x = (
        case.reals(2, channels * groups, size, size, index=7)
        .to(dtype, memory_format=torch.channels_last)
        .requires_grad_()
    )
    place: dict[str, Any] = {"stride": stride, "padding": kernel // 2, "groups": groups}
    mask, theta = case.mask(), case.theta()
    name = f"masked_conv2d, {kernel}x{kernel} stride {stride} groups {groups}, {size}x{size}, {dtype}"
    theirs = F.conv2d(x, weight.view(shape), **place)
    grad = case.reals(*theirs.shape, index=8).to(dtype)

    def both() -> tuple[Tensor, ...]:
        y = masked_conv2d(x, mask, theta, (kernel, kernel), **place)
        return y, *torch.autograd.grad(y, x, grad)

    y, dx = _again(name, both)
    wide = x.detach().cpu().double().requires_grad_()
    truth = F.conv2d(wide, exact.view(shape), **place)
    (their_dx,) = torch.autograd.grad(theirs, x, grad)
    (true_dx,) = torch.autograd.grad(truth, wide, grad.cpu().double())
    return max(within(name, y, theirs, truth.detach()), within(f"gradient of {name}", dx, their_dx, true_dx))
