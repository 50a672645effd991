"""What is exact by definition (bits, thresholds, masks, weights, a step's scores): the device's against the CPU's.

`EXACT` has one function a kernel, which calls it in its variants on a layer made of a seed, the same on every device.
The CPU's results are those of the PyTorch path. On the device, memory that a kernel is to write is poisoned first.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from supermask.kernels.base.bits import pack, popcount, unpack
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.launch import interpreted
from supermask.kernels.base.philox import WEIGHTS, normal, sign_words, uniform
from supermask.kernels.base.theta import Theta
from supermask.kernels.packed_weight.op import packed_weight
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from supermask.kernels.select.op import select
from supermask.kernels.subnet.op import subnet

__all__ = ["EXACT", "Case", "differing", "normal_ulps", "poisoned", "torch_path"]

SEED = 0x0123456789ABCDEF
DTYPES = torch.float32, torch.bfloat16, torch.float16
HARD = (float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e-42, -1e-42)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer of `rows` x `cols` edges, on a device."""

    device: torch.device
    rows: int
    cols: int
    seed: int = 0

    @property
    def third(self) -> int:
        """A third of the edges, and at least one."""
        return max(1, self.rows * self.cols // 3)

    def theta(self) -> Theta:
        return Theta(SEED + self.seed, 3, self.seed % 5, torch.tensor([0.1], device=self.device))

    def reals(self, *shape: int, index: int = 0) -> Tensor:
        """The same random numbers on every device; of two seeds in three some tie, in one some are 0, -0 or tiny."""
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        made = torch.randn(shape, generator=generator)
        if self.seed % 3 == 0:
            made = (made * 64).round() / 64
        elif self.seed % 3 == 1:
            made = self._with(made, generator, HARD[3:])
        return made.to(self.device)

    def scores(self, *shape: int, index: int = 0) -> Tensor:
        """The same with NaN and infinities among them, which rank like any other."""
        made = self.reals(*shape, index=index).cpu()
        if self.seed % 3 == 1:
            made = self._with(made, torch.Generator().manual_seed(self.seed), HARD)
        return made.to(self.device)

    @staticmethod
    def _with(made: Tensor, generator: torch.Generator, values: tuple[float, ...]) -> Tensor:
        """A fifth of them replaced."""
        which = torch.randint(5 * len(values), made.shape, generator=generator)
        return torch.where(which < len(values), torch.tensor(values)[which % len(values)], made)

    def mask(self, index: int = 9) -> Tensor:
        """Packed, some edges in three."""
        with torch_path():
            bits = pack(self.on(torch.device("cpu")).reals(self.rows, self.cols, index=index) > 0.5)
        return bits.to(self.device)

    def on(self, device: torch.device) -> "Case":
        return replace(self, device=device)


@contextmanager
def torch_path() -> Iterator[None]:
    """CPU tensors go PyTorch's way."""
    before = os.environ.get("SUPERMASK_KERNELS")
    os.environ["SUPERMASK_KERNELS"] = "torch"
    try:
        yield
    finally:
        if before is None:
            del os.environ["SUPERMASK_KERNELS"]
        else:
            os.environ["SUPERMASK_KERNELS"] = before


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory from torch.empty is full of NaN and of the largest integers, so that what nobody writes is seen."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled


def _draws(case: Case) -> list[Tensor]:
    place = SEED + case.seed, 3, case.rows, case.cols
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
    scores = [case.scores(case.rows, case.cols), case.scores(7, 31, index=1)]
    kept = torch.tensor([case.third, 200], device=case.device)
    found = [
        select(scores, kept, survivors, absolute)
        for survivors in ([None, None], [case.mask(), None])
        for absolute in (True, False)
    ]
    found.append(select(scores, _coats(kept), [None, None]))
    return [tensor for pair in found for tensor in pair]


def _subnet(case: Case) -> list[Tensor]:
    """In one dtype, another for the next three seeds."""
    dtype = DTYPES[case.seed // 3 % 3]
    place, shape = (SEED, 3, case.rows, case.cols), (case.rows, case.cols)
    drawn = uniform(*place, purpose=WEIGHTS, low=-1.0, high=1.0, device=case.device)
    scores = case.reals(*shape).requires_grad_()
    kept = torch.tensor([case.third], device=case.device)
    threshold = select([scores.detach()], kept, [None])
    grad_weight, theta = case.reals(*shape, index=2).to(dtype), case.theta()
    found = []
    for source in (theta, theta._replace(base=drawn)):
        ever = case.mask()
        weight, mask = subnet(scores, threshold, source, ever=ever, dtype=dtype)
        (grad,) = torch.autograd.grad(weight, scores, grad_weight)
        found += [weight.detach(), mask, ever, grad]
    nested = Threshold(*(each[0] for each in select([scores.detach()], _coats(kept), [None])))
    several, masks = subnet(scores, nested, theta, dtype=dtype, gradient=theta.scaled(3))
    (summed,) = torch.autograd.grad(several, scores, grad_weight)
    return [*found, several.detach(), masks, summed]


def _packed(case: Case) -> list[Tensor]:
    mask, theta = case.mask(), case.theta()
    return [packed_weight(mask, (case.rows, case.cols), theta, dtype) for dtype in DTYPES]


def _score_step(case: Case) -> list[Tensor]:
    shape = case.rows, case.cols
    scores, momenta = [case.reals(*shape)], [torch.full(shape, -0.0, device=case.device)]
    kept = torch.tensor([case.third], device=case.device)
    brackets = torch.tensor([NO_BRACKET], dtype=torch.int32, device=case.device)
    found: list[Tensor] = []
    # Triton's interpreter may round a fused multiply-add twice (3.8 does); a product with a power of two is exact.
    lr, momentum, weight_decay = (2.0**-7, 0.5, 2.0**-13) if interpreted() else (0.01, 0.9, 1e-4)
    nesterov = case.seed % 2 == 1 and not interpreted()
    survivors = [case.mask() if case.seed % 4 == 2 else None]
    for step in range(3):
        grads = [case.reals(*shape, index=step + 3)]
        sgd: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        found += score_step(scores, grads, momenta, survivors, [case.theta()], kept, brackets, **sgd, absolute=True)
    return [*found, *scores, *momenta]


EXACT: dict[str, Callable[[Case], list[Tensor]]] = {
    "philox": _draws,
    "bits": _bits,
    "select": _select,
    "subnet": _subnet,
    "packed_weight": _packed,
    "score_step": _score_step,
}


def differing(name: str, case: Case, times: int = 1) -> list[str]:
    """What of `EXACT[name]`, called `times` times, has not the CPU's bits: a sentence each."""
    with torch_path():
        expected = EXACT[name](case.on(torch.device("cpu")))
    wrong = []
    for time in range(times):
        with poisoned():
            found = EXACT[name](case)
        for index, (a, b) in enumerate(zip(found, expected, strict=True)):
            where = f"{name}, result {index}, {case.rows} x {case.cols}, seed {case.seed}"
            where += f", call {time + 1}" if times > 1 else ""
            if a.dtype is not b.dtype or a.shape != b.shape:
                wrong.append(f"{where}: {a.dtype} of shape {tuple(a.shape)}, the CPU's {b.dtype} of {tuple(b.shape)}")
                continue
            bits = [t.detach().cpu().contiguous().view(torch.uint8) for t in (a, b)]
            if not torch.equal(*bits):
                count = int((bits[0] != bits[1]).sum())
                first = int((bits[0] != bits[1]).flatten().nonzero()[0]) // a.element_size()
                values = [t.detach().cpu().flatten()[first].item() for t in (a, b)]
                wrong.append(
                    f"{where}: {count} bytes differ from the CPU's, the first of element {first}: "
                    f"{values[0]!r}, the CPU's {values[1]!r}"
                )
    return wrong


def normal_ulps(case: Case) -> int:
    """How many units in the last place normal numbers are from the CPU's; 2 are allowed."""
    place = SEED + case.seed, 3, case.rows, case.cols
    with poisoned():
        found = normal(*place, purpose=WEIGHTS, std=0.1, device=case.device).cpu()
    with torch_path():
        expected = normal(*place, purpose=WEIGHTS, std=0.1)
    return int((_ordered(found) - _ordered(expected)).abs().max())


def _ordered(numbers: Tensor) -> Tensor:
    """Integers that are as far apart as the float32 numbers are in units in the last place."""
    bits = numbers.view(torch.int32).long()
    return torch.where(bits < 0, -(2**31) - bits, bits)
