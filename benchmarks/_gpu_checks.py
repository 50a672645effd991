"""Every kernel on a GPU against the PyTorch path on the CPU.

What is exact by definition (bits, thresholds, masks, weights) must be equal to the bit. A product may err twice as much
as PyTorch's own product of the same low-precision weights on the same device, both against float64.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from supermask.kernels.base.bits import pack, popcount, unpack
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.launch import interpreted
from supermask.kernels.base.philox import WEIGHTS, normal, sign_words, uniform
from supermask.kernels.base.theta import Theta
from supermask.kernels.masked_conv2d.op import masked_conv2d
from supermask.kernels.masked_mm.op import masked_mm
from supermask.kernels.packed_weight.op import packed_weight
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from supermask.kernels.select.op import select
from supermask.kernels.subnet.op import subnet

__all__ = ["EXACT", "Case", "check_all"]

SEED = 0x0123456789ABCDEF


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer of `rows` x `cols` edges, on a device."""

    device: torch.device
    rows: int
    cols: int

    @property
    def third(self) -> int:
        """A third of the edges, and at least one."""
        return max(1, self.rows * self.cols // 3)

    def theta(self, device: torch.device | None = None) -> Theta:
        return Theta(SEED, 3, 1, torch.tensor([0.1], device=device or self.device))

    def reals(self, *shape: int, index: int = 0, device: torch.device | None = None) -> Tensor:
        """The same random numbers on every device; some of them tie."""
        generator = torch.Generator().manual_seed(index)
        made = (torch.randn(shape, generator=generator) * 64).round() / 64
        return made.to(device or self.device)

    def mask(self, device: torch.device | None = None) -> Tensor:
        return pack(self.reals(self.rows, self.cols, index=9, device=torch.device("cpu")) > 0.5).to(
            device or self.device
        )

    def on(self, device: torch.device) -> "Case":
        return Case(device=device, rows=self.rows, cols=self.cols)


@contextmanager
def _torch_path() -> Iterator[None]:
    before = os.environ.get("SUPERMASK_KERNELS")
    os.environ["SUPERMASK_KERNELS"] = "torch"
    try:
        yield
    finally:
        if before is None:
            del os.environ["SUPERMASK_KERNELS"]
        else:
            os.environ["SUPERMASK_KERNELS"] = before


def _draws(case: Case) -> list[Tensor]:
    place = SEED, 3, case.rows, case.cols
    return [
        sign_words(*place, generation=1, device=case.device),
        uniform(*place, purpose=WEIGHTS, low=-0.5, high=2.0, device=case.device),
    ]


def _bits(case: Case) -> list[Tensor]:
    words = pack(case.reals(case.rows, case.cols) > 0)
    return [words, unpack(words, case.cols), popcount(words)]


def _coats(kept: Tensor) -> Tensor:
    """Counts of three nested coats, the widest as given: [layers, 3]."""
    return torch.stack([kept, (kept + 1) // 2, (kept + 8) // 9], 1)


def _select(case: Case) -> list[Tensor]:
    scores = [case.reals(case.rows, case.cols), case.reals(7, 31, index=1)]
    kept = torch.tensor([case.third, 200], device=case.device)
    found = [select(scores, kept, survivors, absolute) for survivors in ([None, None], [case.mask(), None])
             for absolute in (True, False)]  # fmt: skip
    found.append(
        select(scores, torch.stack([kept, kept // 2 + 1, kept // 9 + 1], 1).clamp(max=kept[:, None]), [None, None])
    )
    return [tensor for pair in found for tensor in pair]


def _subnet(case: Case) -> list[Tensor]:
    found = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        scores = case.reals(case.rows, case.cols).requires_grad_()
        kept = torch.tensor([case.third], device=case.device)
        threshold = select([scores.detach()], kept, [None])
        ever = case.mask()
        weight, mask = subnet(scores, threshold, case.theta(), ever=ever, dtype=dtype)
        (grad,) = torch.autograd.grad(weight, scores, case.reals(case.rows, case.cols, index=2).to(dtype))
        nested = Threshold(*(each[0] for each in select([scores.detach()], _coats(kept), [None])))
        theta = case.theta()
        several, masks = subnet(scores, nested, theta, dtype=dtype, gradient=theta.scaled(3))
        (summed,) = torch.autograd.grad(several, scores, case.reals(case.rows, case.cols, index=2).to(dtype))
        found += [weight.detach(), mask, ever, grad, several.detach(), masks, summed]
    return found


def _packed(case: Case) -> list[Tensor]:
    shape = case.rows, case.cols
    return [packed_weight(case.mask(), shape, case.theta(), dtype) for dtype in (torch.float32, torch.bfloat16)]


def _score_step(case: Case) -> list[Tensor]:
    scores, momenta = [case.reals(case.rows, case.cols)], [torch.full((case.rows, case.cols), -0.0, device=case.device)]
    kept = torch.tensor([case.third], device=case.device)
    brackets = torch.tensor([NO_BRACKET], dtype=torch.int32, device=case.device)
    found: list[Tensor] = []
    # Triton's interpreter may round a fused multiply-add twice (3.8 does); a product with a power of two is exact.
    lr, momentum, weight_decay = (2.0**-7, 0.5, 2.0**-13) if interpreted() else (0.01, 0.9, 1e-4)
    for step in range(3):
        grads = [case.reals(case.rows, case.cols, index=step + 3)]
        sgd: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": False}
        found += score_step(scores, grads, momenta, [None], [case.theta()], kept, brackets, **sgd, absolute=True)
    return [*found, *scores, *momenta]


EXACT: dict[str, Callable[[Case], list[Tensor]]] = {
    "philox": _draws,
    "bits": _bits,
    "select": _select,
    "subnet": _subnet,
    "packed_weight": _packed,
    "score_step": _score_step,
}


def check_exact(name: str, case: Case) -> None:
    """Raise unless `EXACT[name]` gives the CPU's bits."""
    found = EXACT[name](case)
    with _torch_path():
        expected = EXACT[name](case.on(torch.device("cpu")))
    for index, (a, b) in enumerate(zip(found, expected, strict=True)):
        bits = [t.detach().cpu().contiguous().view(torch.uint8) for t in (a, b)]
        if a.dtype is not b.dtype or a.shape != b.shape or not torch.equal(*bits):
            wrong = int((bits[0] != bits[1]).sum()) if bits[0].shape == bits[1].shape else "all"
            raise RuntimeError(
                f"{name}, result {index}, {case.rows} x {case.cols}: {wrong} bytes differ from the CPU's"
            )


def check_normal(case: Case) -> None:
    """Raise unless normal numbers are within 2 ulp of the CPU's."""
    place = SEED, 3, case.rows, case.cols
    found = normal(*place, purpose=WEIGHTS, std=0.1, device=case.device).cpu()
    with _torch_path():
        expected = normal(*place, purpose=WEIGHTS, std=0.1)
    apart = (found.view(torch.int32).long() - expected.view(torch.int32).long()).abs().max()
    if int(apart) > 2:
        raise RuntimeError(f"normal, {case.rows} x {case.cols}: {int(apart)} ulp from the CPU's numbers, 2 are allowed")


def _within(name: str, found: Tensor, theirs: Tensor, truth: Tensor) -> None:
    """Raise unless `found` errs at most twice as much as `theirs`, PyTorch's own result in the same dtype."""
    error, allowed = ((t.detach().cpu().double() - truth).abs().max() for t in (found, theirs))
    # Where PyTorch happens to hit the nearest number everywhere, half a unit in the last place is still no error.
    least = torch.finfo(found.dtype).eps * truth.abs().max() / 2
    if not error <= 2 * allowed + least:
        raise RuntimeError(f"{name} errs by {float(error):.3g}; PyTorch's own product by {float(allowed):.3g}")


def _weights(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """For PyTorch on the device, in `dtype`, and in float64 on the CPU."""
    mask, theta = case.mask(torch.device("cpu")), case.theta(torch.device("cpu"))
    with _torch_path():
        exact = packed_weight(mask, (case.rows, case.cols), theta, torch.float64)
    return exact.to(case.device, dtype), exact


def check_masked_mm(case: Case, dtype: torch.dtype, batch: int) -> None:
    """Raise unless y and the gradient of x are as near the truth as twice PyTorch's."""
    weight, exact = _weights(case, dtype)
    x = case.reals(batch, case.cols, index=5).to(dtype).requires_grad_()
    grad = case.reals(batch, case.rows, index=6).to(dtype)
    y = masked_mm(x, case.mask(), case.theta())
    (dx,) = torch.autograd.grad(y, x, grad)
    name = f"masked_mm, {batch} rows by {case.rows} x {case.cols}, {dtype}"
    _within(name, y, F.linear(x, weight), x.detach().cpu().double() @ exact.T)
    _within(f"gradient of {name}", dx, grad @ weight, grad.cpu().double() @ exact)


def check_masked_conv2d(case: Case, dtype: torch.dtype, size: int, kernel: int, stride: int, groups: int) -> None:
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
    y = masked_conv2d(x, case.mask(), case.theta(), (kernel, kernel), **place)
    theirs = F.conv2d(x, weight.view(shape), **place)
    wide = x.detach().cpu().double().requires_grad_()
    truth = F.conv2d(wide, exact.view(shape), **place)
    grad = case.reals(*y.shape, index=8).to(dtype)
    (dx,), (their_dx,) = torch.autograd.grad(y, x, grad), torch.autograd.grad(theirs, x, grad)
    (true_dx,) = torch.autograd.grad(truth, wide, grad.cpu().double())
    name = f"masked_conv2d, {kernel}x{kernel} stride {stride} groups {groups}, {size}x{size}, {dtype}"
    _within(name, y, theirs, truth.detach())
    _within(f"gradient of {name}", dx, their_dx, true_dx)


def check_all(
    device: torch.device,
    shapes: Sequence[tuple[int, int]] = ((1, 1), (129, 257), (512, 2048)),
    *,
    batches: Sequence[int] = (1, 8, 100),
    sizes: Sequence[int] = (14,),
    channels: int = 64,
) -> list[str]:
    """Compare every kernel on `device` with the CPU.

    Args:
        shapes: layers, rows and cols.
        batches: rows of x of the products.
        sizes: height and width of the images of the convolutions.
        channels: of them.

    Returns:
        What was compared, a line each.

    Raises:
        RuntimeError: a kernel gives something else, with the name of what.
    """
    done = []
    for rows, cols in shapes:
        case = Case(device=device, rows=rows, cols=cols)
        for name in EXACT:
            check_exact(name, case)
        check_normal(case)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for batch in batches:
                check_masked_mm(case, dtype, batch)
        done.append(f"{rows} x {cols}: {', '.join(EXACT)}, normal, masked_mm with {batches} rows")
    for kernel, stride, groups in ((1, 1, 1), (3, 1, 1), (3, 2, 2)):
        case = Case(device=device, rows=channels, cols=channels // groups * kernel**2)
        for size in sizes:
            for dtype in (torch.float32, torch.bfloat16):
                check_masked_conv2d(case, dtype, size, kernel, stride, groups)
            done.append(f"{channels} channels, {kernel}x{kernel} stride {stride} groups {groups}: masked_conv2d")
    return done
