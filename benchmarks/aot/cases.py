"""Launcher calls that between them start every kernel in every configuration.

The calls take ordinary CPU tensors and look at no output: benchmarks.aot compiles what they start.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from supermask.kernels.base import bits, philox, table
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.planes import Planes
from supermask.kernels.base.sgd import Sgd
from supermask.kernels.base.theta import Theta
from supermask.kernels.masked_conv2d import gpu as masked_conv2d
from supermask.kernels.masked_conv2d.arguments import Window
from supermask.kernels.masked_mm import gpu as masked_mm
from supermask.kernels.packed_weight import gpu as packed
from supermask.kernels.score_step import gpu as score_step
from supermask.kernels.select import gpu as select
from supermask.kernels.subnet import gpu as subnet

__all__ = ["CASES"]

_CPU = torch.device("cpu")
# The compiler tells apart sizes divisible by 16, sizes of 1 and others, and seeds of 32 bits and of 64.
_LAYERS = [(512, 512, 7), (512, 512, 1 << 40), (10, 27, 7), (1, 1, 7)]


def _bits(rows: int, cols: int) -> Tensor:
    return torch.zeros(rows, bits.words_per_row(cols), dtype=torch.int32)


def _philox() -> None:
    for rows, cols, seed in _LAYERS:
        philox.sign_words_triton(seed, 1, 0, rows, cols, _CPU)
        philox.uniform_triton(seed, 1, 0, -1.0, 2.0, rows, cols, _CPU)
        philox.normal_triton(seed, 1, 0, 1.0, rows, cols, _CPU)


def _bit_ops() -> None:
    for rows, cols, _ in _LAYERS:
        bits.pack_triton(torch.zeros(rows, cols, dtype=torch.bool))
        bits.unpack_triton(_bits(rows, cols), cols)
        bits.popcount_triton(_bits(rows, cols))


def _weights(each: Callable[[int, int, Theta, torch.dtype, bool], object]) -> None:
    """`each(rows, cols, theta, dtype, extras)` for every kind of layer; for the first also without extras, and with
    every source of weights in 32 and 16 bits. Signs drawn come from a kernel that the case "philox" has."""
    rows, cols, seed = _LAYERS[0]
    each(rows, cols, Theta(seed, 1, 0, torch.ones(1)), torch.float32, True)
    for rows, cols, seed in _LAYERS[2:]:
        each(rows, cols, Theta(seed, 1, 0, torch.ones(1), _bits(rows, cols)), torch.float32, True)
    rows, cols, seed = _LAYERS[0]
    each(rows, cols, Theta(seed, 1, 0, torch.ones(1), _bits(rows, cols)), torch.float32, False)
    for signs, base in ((_bits(rows, cols), None), (None, torch.zeros(rows, cols))):
        for dtype in (torch.float32, torch.bfloat16):
            each(rows, cols, Theta(seed, 1, 0, torch.ones(1), signs, base), dtype, True)


def _scores() -> None:
    """Thresholds of scores as they are, of one coat and of several, and of scores after a step."""
    scores = [torch.zeros(rows, cols) for rows, cols, _ in _LAYERS]
    survivors = [None, *(_bits(rows, cols) for rows, cols, _ in _LAYERS[1:])]
    kept = torch.ones(len(scores), dtype=torch.int64)
    thetas = [Theta(seed, layer, 0, torch.ones(1)) for layer, (_, _, seed) in enumerate(_LAYERS)]
    brackets = torch.tensor([(1, 0)] * len(scores), dtype=torch.int32)
    rows, _ = select.layer_rows(scores, survivors)
    table.carried(rows, _CPU)
    for absolute in (True, False):
        select.select_triton(scores, kept, survivors, absolute)
    select.select_triton(scores, kept[:, None].repeat(1, 3), survivors, True)
    lr = torch.tensor(0.1)
    for absolute, sgd in (
        (True, Sgd(lr, 0.9, 1e-4, False)),
        (True, Sgd(lr, 0.9, 1e-4, True)),
        (False, Sgd(lr, 0.0, 0.0, False)),
    ):
        momenta = scores if sgd.momentum else []
        score_step.score_step_triton(scores, scores, momenta, survivors, thetas, kept, brackets, sgd, absolute)


def _subnet() -> None:
    def forward(
        coats: int, scores: Tensor, theta: Theta, absolute: bool, dtype: torch.dtype, extra: Tensor | None
    ) -> None:
        threshold = Threshold(torch.zeros(coats, dtype=torch.int32), torch.zeros(coats, dtype=torch.int64))
        subnet.subnet_triton(scores, threshold, extra, theta, absolute, dtype, extra)

    def each(rows: int, cols: int, theta: Theta, dtype: torch.dtype, extras: bool) -> None:
        scores, absolute = torch.zeros(rows, cols), dtype is torch.float32
        extra = _bits(rows, cols) if extras else None
        forward(1, scores, theta, absolute, dtype, extra)
        subnet.subnet_backward_triton(scores.to(dtype), scores, extra, theta, absolute)

    _weights(each)
    rows, cols, seed = _LAYERS[0]
    scores, words = torch.zeros(rows, cols), _bits(rows, cols)
    signed, dense = Theta(seed, 1, 0, torch.ones(1), words), Theta(seed, 1, 0, torch.ones(1), None, scores)
    for coats, theta, dtype in (
        *((coats, signed, dtype) for coats in (2, 3, 4) for dtype in (torch.float32, torch.bfloat16)),
        (3, signed, torch.float16),
        (3, dense, torch.float32),
        (3, dense, torch.bfloat16),
    ):
        forward(coats, scores, theta, True, dtype, words)


def _packed_weight() -> None:
    _weights(
        lambda rows, cols, theta, dtype, _: packed.packed_weight_triton(_bits(rows, cols), [rows, cols], theta, dtype)
    )


_BF16, _FP16, _FP32 = torch.bfloat16, torch.float16, torch.float32


def _masked_mm() -> None:
    """Many rows of x and few, each dtype, signs from the seed and given, coats, a bias and flips, an odd layer."""
    for rows, cols, seed, batch, dtype, signs, coats, extras in (
        (4096, 4096, 7, 4096, _BF16, False, 1, False),
        (4096, 4096, 7, 4096, _BF16, True, 1, False),
        (4096, 4096, 7, 1, _BF16, False, 1, False),
        (4096, 4096, 7, 1, _BF16, True, 1, False),
        (4096, 4096, 7, 4096, _BF16, False, 2, False),
        (4096, 4096, 7, 4096, _FP16, False, 1, True),
        (4096, 4096, 7, 4096, _FP32, False, 1, False),
        (10, 27, 1 << 40, 3, _BF16, False, 1, True),
    ):
        mask, words = torch.zeros(coats, *_bits(rows, cols).shape, dtype=torch.int32), _bits(rows, cols)
        theta = Theta(seed, 1, 0, torch.ones(1), words if signs else None)
        planes = Planes(mask, theta, words if extras else None)
        x, grad = torch.zeros(batch, cols, dtype=dtype), torch.zeros(batch, rows, dtype=dtype)
        bias = torch.zeros(rows) if extras else None
        masked_mm.masked_mm_triton(x, planes, None, bias)
        if dtype is _BF16 and not signs and coats == 1:
            masked_mm.masked_mm_backward_triton(grad, planes, cols)


def _masked_conv2d() -> None:
    """Kernels of one tap and of several, with few channels and many, strided, in groups; signs, coats, dtypes."""
    for rows, channels, kernel, stride, groups, seed, dtype, signs, coats, extras, gradient in (
        (256, 256, 1, 1, 1, 7, _BF16, False, 1, False, False),
        (256, 256, 1, 1, 1, 7, _BF16, True, 1, False, False),
        (256, 256, 3, 1, 1, 7, _BF16, False, 1, False, True),
        (64, 64, 3, 2, 1, 7, _BF16, False, 1, False, True),
        (64, 3, 7, 2, 1, 7, _BF16, False, 1, False, True),
        (256, 256, 1, 1, 1, 7, _BF16, False, 2, False, True),
        (256, 256, 3, 1, 1, 7, _FP32, False, 1, False, False),
        (256, 256, 3, 1, 1, 7, _FP16, False, 1, True, False),
        (10, 3, 3, 1, 2, 1 << 40, _BF16, False, 1, True, True),
    ):
        words = _bits(rows, channels * kernel**2)
        mask = torch.zeros(coats, *words.shape, dtype=torch.int32)
        theta = Theta(seed, 1, 0, torch.ones(1), words if signs else None)
        planes = Planes(mask, theta, words if extras else None)
        x = torch.zeros(2, channels * groups, 28, 28, dtype=dtype).to(memory_format=torch.channels_last)
        window = Window((kernel, kernel), (stride, stride), (kernel // 2, kernel // 2), (1, 1), groups)
        y = masked_conv2d.masked_conv2d_triton(x, planes, torch.zeros(rows) if extras else None, window)
        if gradient:
            masked_conv2d.masked_conv2d_backward_triton(y, planes, x.shape[1:], window)


CASES: dict[str, Callable[[], object]] = {
    "philox": _philox,
    "bits": _bit_ops,
    "scores": _scores,
    "subnet": _subnet,
    "packed_weight": _packed_weight,
    "masked_mm": _masked_mm,
    "masked_conv2d": _masked_conv2d,
}
"""Launcher calls that between them start every kernel in every configuration the launchers choose. The first of a
variant is the one that the table shows."""
