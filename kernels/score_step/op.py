"""score_step: an SGD step on the scores of all layers, and the thresholds of what they become, in one call.

The gradient comes as that of the effective weight, dL/dw, and is made that of the score on the way
(kernels/subnet/op.py):

    g = dL/dw * theta0 * (sign(s) where scores rank by |s|, sign(0) = +1), 0 where hard pruning removed the edge
    g = fma(weight_decay, s, g)                           where weight_decay is not 0
    v = momentum * v + g,  g = v                          where momentum is not 0
        (with Nesterov's   g = fma(momentum, v, g))
    s = fma(-lr, g, s)

Every operation rounds once, fma too: what torch.optim.SGD does on a CPU with fused multiply-add, to the bit. In its
first step v is g: so it is here where v starts at -0.0 (from +0.0 a zero may get the other sign).

Scores move little in a step, so the last threshold says where the next is. A bracket, two keys low <= high that the
caller keeps (low > high: nothing known), holds about 1 % of the layer on each side of tau. The pass that updates the
scores counts the keys above it and gathers those inside. Where `kept` falls inside, tau is found among these; where it
does not, or there are more than there is room for, among all. So the threshold depends on scores, kept and survivors
alone, and the bracket only saves time.

On the GPU: kernels/score_step/gpu.py; with the C extension: kernels/score_step/native.py. The PyTorch path is the plain
statement and leaves the bracket alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.launch import define_op
from supermask.kernels.base.sgd import Sgd
from supermask.kernels.base.theta import Theta
from supermask.kernels.score_step.gpu import score_step_triton
from supermask.kernels.score_step.native import score_step_native
from supermask.kernels.select.arguments import check_counts, check_layer
from supermask.kernels.select.op import select
from supermask.kernels.subnet.cpu import subnet_backward_cpu

__all__ = ["NO_BRACKET", "score_step"]

NO_BRACKET = (1, 0)
"""Keys that bracket nothing, for the first step."""


def reference(
    scores: Sequence[Tensor], grads: Sequence[Tensor], momenta: Sequence[Tensor], survivors: Sequence[Tensor | None],
    thetas: Sequence[Theta], kept: Tensor, brackets: Tensor, sgd: Sgd, absolute: bool,
) -> Threshold:  # fmt: skip
    """The equations, a layer at a time, and a selection that needs no bracket."""
    check_counts(scores, kept)
    lr = sgd.lr.item()
    for i, s in enumerate(scores):
        g = subnet_backward_cpu(grads[i], s, survivors[i], thetas[i], absolute)
        if sgd.weight_decay != 0:
            g.add_(s, alpha=sgd.weight_decay)
        if sgd.momentum != 0:
            v = momenta[i].mul_(sgd.momentum).add_(g)
            g = g.add_(v, alpha=sgd.momentum) if sgd.nesterov else v
        s.add_(g, alpha=-lr)
    return select(scores, kept, survivors, absolute)


def _records(
    scores: Sequence[Tensor], grads: Sequence[Tensor], momenta: Sequence[Tensor], survivors: Sequence[Tensor | None],
    constants: Sequence[Tensor], signs: Sequence[Tensor | None], bases: Sequence[Tensor | None],
    seeds: Sequence[int], layers: Sequence[int], streams: Sequence[int], kept: Tensor, brackets: Tensor, lr: Tensor,
    momentum: float, weight_decay: float, nesterov: bool, absolute: bool,
) -> tuple[Any, ...]:  # fmt: skip
    thetas = [*map(Theta.of, constants, signs, bases, seeds, layers, streams)]
    sgd = Sgd(lr, momentum, weight_decay, nesterov)
    return scores, grads, momenta, survivors, thetas, kept, brackets, sgd, absolute


_score_step = define_op(
    "score_step",
    triton_impl=score_step_triton,
    torch_impl=reference,
    native_impl=score_step_native,
    schema="(Tensor(a!)[] scores, Tensor[] grads, Tensor(b!)[] momenta, Tensor?[] survivors, Tensor[] constants, "
    "Tensor?[] signs, Tensor?[] bases, SymInt[] seeds, SymInt[] layers, SymInt[] streams, Tensor kept, "
    "Tensor(c!) brackets, Tensor lr, float momentum, float weight_decay, bool nesterov, bool absolute) "
    "-> (Tensor, Tensor)",
    records=_records,
    fake=lambda scores, grads, momenta, survivors, constants, signs, bases, seeds, layers, streams, kept, *rest: (
        kept.new_empty(len(scores), dtype=torch.int32),
        kept.new_empty(len(scores)),
    ),
    mutates=("scores", "momenta", "brackets"),
)


def score_step(
    scores: Sequence[Tensor],
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor | None],
    survivors: Sequence[Tensor | None],
    thetas: Sequence[Theta],
    kept: Tensor,
    brackets: Tensor,
    *,
    lr: float | Tensor,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    absolute: bool = True,
) -> Threshold:
    """One SGD step on the scores of every layer, in place, and the threshold of every layer after it.

    Args:
        scores: of each layer, float32 [rows, ...], contiguous; updated.
        grads: of each layer dL/dw, w the effective weights: float32 of the scores' shape, contiguous.
        momenta: of each layer float32 of the scores' shape, contiguous, before the first step -0.0; updated. None where
            `momentum` is 0.
        survivors: of each layer the packed bits of the edges that hard pruning left, int32 [rows, words]; None is all.
            The scores of others decay and coast, as in torch.optim.SGD with a gradient of zero.
        thetas: of each layer where its weights come from; real-valued ones as `base`.
        kept: of each layer the edges to keep, of one coat, as `supermask.kernels.select.select` takes them.
        brackets: of each layer two keys, int32 [layers, 2], contiguous; NO_BRACKET at first, then as the last call left
            them. Updated. They have no influence on what is returned.
        lr: as in torch.optim.SGD; a tensor is float32 [] or [1] on the device of `kept`, and read where the step runs,
            so that a replay of a captured step finds what lies there then. Its value is not checked. Of a float, which
            every path rounds to float32, such a tensor is made.
        momentum, weight_decay, nesterov: as in torch.optim.SGD.
        absolute: rank by |score| (`abs`) or by score (`raw`).

    Returns:
        The thresholds, [layers], as `supermask.kernels.select.select` gives them for the new scores.

    Raises:
        TypeError: a tensor has the wrong dtype.
        ValueError: lengths, shapes, layouts or devices disagree, theta0 is real-valued and not given, a hyperparameter
            that the host knows is out of range, or on the CPU a count is.
    """
    given: dict[str, Any] = {"grads": grads, "momenta": momenta, "survivors": survivors, "thetas": thetas, "kept": kept}
    lengths = {name: len(each) for name, each in given.items() if len(each) != len(scores)}
    if lengths:
        raise ValueError(f"{len(scores)} layers of scores, but {lengths}: expected one of each for each layer")
    rates = {"momentum": momentum, "weight_decay": weight_decay}
    if not isinstance(lr, Tensor):
        rates["lr"] = lr
    if min(rates.values()) < 0 or (nesterov and momentum == 0):
        raise ValueError(f"{rates}, nesterov {nesterov}: expected none below 0, and a momentum for Nesterov's")
    if kept.dtype is not torch.int64 or kept.ndim != 1:
        raise TypeError(f"kept is {kept.dtype} of shape {tuple(kept.shape)}: expected torch.int64 [layers]")
    _check("brackets", brackets, (len(scores), 2), torch.int32, kept.device)
    for layer, (s, alive, theta) in enumerate(zip(scores, survivors, thetas, strict=True)):
        check_layer(layer, s, alive, kept.device)
        rows, cols = s.shape[0], s.numel() // s.shape[0]
        if cols >= 2**31:
            raise ValueError(f"layer {layer}: {cols} columns: supported up to {2**31 - 1}")
        theta.check(rows, cols)
        _check(f"layer {layer}: theta.constant", theta.constant, (1,), torch.float32, kept.device)
        if theta.real is not None:
            raise ValueError(
                f"layer {layer}: theta0 is drawn as {theta.real}: give it as base "
                "(supermask.kernels.base.theta.Theta.made)"
            )
        for name, tensor in (("signs", theta.signs), ("base", theta.base)):
            if tensor is not None and tensor.device != kept.device:
                raise ValueError(f"layer {layer}: theta.{name} is on {tensor.device}, kept on {kept.device}")
        _check(f"layer {layer}: the gradient", grads[layer], s.shape, torch.float32, kept.device)
        v = momenta[layer]
        if (v is None) != (momentum == 0):
            raise ValueError(f"layer {layer}: momentum is {momentum} and its buffer {v if v is None else 'given'}")
        if v is not None:
            _check(f"layer {layer}: the momentum", v, s.shape, torch.float32, kept.device)
    schemas = zip(*(theta.schema() for theta in thetas), strict=True) if thetas else [()] * 6
    found = _score_step(
        [s.detach() for s in scores],
        [g.detach() for g in grads],
        [v for v in momenta if v is not None],
        list(survivors),
        *map(list, schemas),
        kept.contiguous(),
        brackets,
        _rate(lr, kept.device),
        momentum,
        weight_decay,
        nesterov,
        absolute,
    )
    return Threshold(*found)


def _rate(lr: float | Tensor, device: torch.device) -> Tensor:
    if not isinstance(lr, Tensor):
        return torch.full((), lr, dtype=torch.float32, device=device)
    _check("lr", lr, (1,) if lr.ndim else (), torch.float32, device)
    return lr.detach()


def _check(name: str, tensor: Tensor, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
    if tensor.dtype is not dtype:
        raise TypeError(f"{name} is {tensor.dtype}: expected {dtype}")
    if tensor.shape != tuple(shape) or not tensor.is_contiguous() or tensor.device != device:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)} and strides {tensor.stride()} on {tensor.device}: expected "
            f"contiguous {tuple(shape)} on {device}"
        )
