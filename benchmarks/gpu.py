"""Every kernel on a GPU: against the CPU's results, then timed against cuBLAS, cuDNN, torch.sort and torch.kthvalue.

    python -m benchmarks.gpu

Without a CUDA or ROCm device it says what did not run. Float32 products of PyTorch keep full precision here, as those
of the kernels do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._gpu_checks import Case, check_all
from benchmarks._report import Comparison, Options, Report, command
from benchmarks._timing import interleaved
from benchmarks.threshold import RESNET18, check, scores_of
from supermask.kernels.base.theta import Theta
from supermask.kernels.masked_conv2d.op import masked_conv2d
from supermask.kernels.masked_mm.op import masked_mm
from supermask.kernels.packed_weight.op import packed_weight
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from supermask.kernels.select.op import select

Calls = Mapping[str, Callable[[], object]]
CONVOLUTIONS = ((64, 56, 1), (64, 56, 3), (256, 14, 3), (512, 7, 3))  # channels, height and width, kernel
CALLS = 10  # in a row, so that waiting for the device weighs little
CHECKED = "equal to the CPU's result to the bit; products within twice PyTorch's own error against float64"


@dataclass(frozen=True, kw_only=True)
class GpuOptions(Options):
    width: int = 4096
    """of the linear layer"""
    batches: tuple[int, ...] = (1, 8, 64, 4096)
    """rows of x of the linear layer"""
    images: int = 64
    """of the convolutions"""


def linear_calls(batch: int, width: int, device: torch.device) -> Calls:
    """A linear layer in bf16: dense, from one bit an edge, and made dense first."""
    case = Case(device=device, rows=width, cols=width)
    mask, theta = case.mask(), case.theta()
    x = torch.randn(batch, width, device=device).bfloat16()
    dense = packed_weight(mask, (width, width), theta, torch.bfloat16)
    return {
        "masked_mm": lambda: masked_mm(x, mask, theta),
        "dense bf16": lambda: F.linear(x, dense),
        "packed_weight, then dense": lambda: F.linear(x, packed_weight(mask, (width, width), theta, torch.bfloat16)),
    }


def conv_calls(channels: int, size: int, kernel: int, images: int, device: torch.device) -> Calls:
    """A convolution of a ResNet in bf16, channels-last."""
    case = Case(device=device, rows=channels, cols=channels * kernel**2)
    mask, theta = case.mask(), case.theta()
    shape = channels, channels, kernel, kernel
    x = torch.randn(images, channels, size, size, device=device).to(torch.bfloat16, memory_format=torch.channels_last)
    dense = packed_weight(mask, shape, theta, torch.bfloat16).to(memory_format=torch.channels_last)
    padding = kernel // 2
    return {
        "masked_conv2d": lambda: masked_conv2d(x, mask, theta, (kernel, kernel), padding=padding),
        "dense bf16": lambda: F.conv2d(x, dense, padding=padding),
    }


def select_calls(scores: list[Tensor], kept: Tensor) -> Calls:
    """Thresholds of all layers, against a sort and a k-th value a layer."""
    flat = [s.abs().reshape(-1) for s in scores]
    jobs = list(zip(flat, kept.tolist(), strict=True))
    return {
        "select": lambda: select(scores, kept, [None] * len(scores)),
        "torch.kthvalue": lambda: [s.kthvalue(s.numel() - k + 1) for s, k in jobs],
        "torch.sort": lambda: [s.sort() for s in flat],
    }


def step_calls(scores: list[Tensor], kept: Tensor) -> Calls:
    """A step of SGD with momentum and new thresholds, against the step alone."""
    device = kept.device
    mine, grads = [s.clone() for s in scores], [torch.randn_like(s) * 1e-3 for s in scores]
    momenta = [torch.full_like(s, -0.0) for s in scores]
    thetas = [Theta(7, index, 0, torch.ones(1, device=device)) for index in range(len(scores))]
    brackets = torch.tensor([NO_BRACKET] * len(scores), dtype=torch.int32, device=device)
    sgd: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": False}
    parameters = [torch.nn.Parameter(s.clone()) for s in scores]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad
    plain = torch.optim.SGD(parameters, **sgd)
    survivors = [None] * len(scores)
    sgd["lr"] = torch.tensor(sgd["lr"], device=device)
    return {
        "score_step": lambda: score_step(mine, grads, momenta, survivors, thetas, kept, brackets, **sgd, absolute=True),
        "torch.optim.SGD": plain.step,
    }


def comparisons(options: GpuOptions, device: torch.device) -> list[Comparison]:
    """All timings."""
    scores = scores_of(RESNET18, device)
    kept = torch.tensor([max(1, s.numel() // 2) for s in scores], device=device)
    check(scores, kept)
    cases: list[tuple[str, str, Calls]] = []
    for batch in options.batches:
        name = f"{batch} rows of {options.width} x {options.width}, bf16"
        cases.append((name, "dense bf16", linear_calls(batch, options.width, device)))
    for channels, size, kernel in CONVOLUTIONS:
        name = f"{options.images} images, {channels} channels {size}x{size}, {kernel}x{kernel}, bf16"
        cases.append((name, "dense bf16", conv_calls(channels, size, kernel, options.images, device)))
    cases.append(("11.2 M scores, half kept", "select", select_calls(scores, kept)))
    cases.append(("a step on 11.2 M scores", "torch.optim.SGD", step_calls(scores, kept)))
    return [
        Comparison(
            case=name,
            base=base,
            seconds=interleaved(calls, rounds=options.rounds_of(21), warmup=3, device=device, calls=CALLS),
            checked=CHECKED,
        )
        for name, base, calls in cases
    ]


def run(options: GpuOptions) -> Report:
    """Check, then time."""
    title = "Kernels on a GPU"
    if options.where().type != "cuda":
        why = "no CUDA or ROCm device here" if not torch.cuda.is_available() else "--device cpu"
        return Report(
            title=title,
            skipped=(
                f"{why}: no kernel checked against the CPU nor timed against cuBLAS, cuDNN, torch.sort, kthvalue",
            ),
        )
    device = options.where()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    checked = check_all(device)
    timed = comparisons(options, device)
    return Report(title=title, comparisons=tuple(timed), notes=tuple(f"checked: {line}" for line in checked))


if __name__ == "__main__":
    command(run)
