"""Selecting the highest half of all layers' scores, and a step on them, against what PyTorch offers.

A selection reads every score at least once; kernels/select reads them three times, so what that takes stands
beside it: at the rate of a copy, and as PyTorch's amax reads them ("three readings"). PyTorch's other ways find one
value a layer, or order it, and break no ties.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench, Case, Rival
from benchmarks.gpu.convolutions import RESNET50
from benchmarks.gpu.floors import Work
from benchmarks.gpu.products import sets_of
from benchmarks.threshold import RESNET18, check, scores_of
from supermask.kernels.base.theta import Theta
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from supermask.kernels.select.op import select

__all__ = ["NETWORKS", "SelectionSizes", "cases"]

Shapes = tuple[tuple[int, ...], ...]
NETWORKS: dict[str, Shapes] = {
    "ResNet-18": tuple(RESNET18),
    "ResNet-50": (*(of.shape for of in RESNET50 for _ in range(of.layers)), (1000, 2048)),
}
SGD: dict[str, Any] = {"momentum": 0.9, "weight_decay": 1e-4, "nesterov": False}
STEP_BYTES = 20  # an edge: score and momentum read and written, gradient read


@dataclass(frozen=True, kw_only=True)
class SelectionSizes:
    """Of what is selected."""

    networks: tuple[tuple[str, Shapes], ...] = tuple(NETWORKS.items())
    remaining: tuple[float, ...] = (0.5, 0.1)


Layers = tuple[list[Tensor], Tensor]


def _layers(shapes: Shapes, remaining: float, device: torch.device) -> Layers:
    """Scores of each layer, and how many are kept."""
    scores = scores_of(list(shapes), device)
    return scores, torch.tensor([max(1, round(remaining * s.numel())) for s in scores], device=device)


def _selections(layers: list[Layers], edges: int) -> dict[str, Rival]:
    least = Work(bytes=4 * edges)

    def ours(scores: list[Tensor], kept: Tensor) -> object:
        return select(scores, kept, [None] * len(scores))

    def rival(one: Callable[[Tensor, int], object], work: Work = least) -> Rival:
        flat = [([s.abs().reshape(-1) for s in scores], kept.tolist()) for scores, kept in layers]

        def every(each: list[Tensor], counts: list[int]) -> None:
            for s, count in zip(each, counts, strict=True):
                one(s, count)

        return Rival(calls=[partial(every, *of) for of in flat], work=work)

    return {
        "select": Rival(calls=[partial(ours, *of) for of in layers], work=least),
        "three readings": rival(lambda s, _: [s.amax() for _ in range(3)], Work(bytes=12 * edges)),
        "torch.kthvalue": rival(lambda s, count: s.kthvalue(s.numel() - count + 1)),
        "torch.topk": rival(lambda s, count: s.topk(count, sorted=False)),
        "torch.sort": rival(lambda s, _: s.sort()),
    }


def _select(bench: Bench, shapes: Shapes, remaining: float, warm: bool) -> dict[str, Any]:
    first = _layers(shapes, remaining, bench.device)
    check(*first)
    edges = sum(s.numel() for s in first[0])
    count = 1 if warm else sets_of(4 * edges, bench.timer.cache)
    copies = [([s.clone() for s in first[0]], first[1]) for _ in range(count - 1)]
    against = [("select", "torch.kthvalue"), ("select", "torch.topk"), ("select", "torch.sort")]
    found = bench.compare(
        _selections([first, *copies], edges),
        base="select",
        warm=warm,
        against=against,
        edges=edges,
        remaining=remaining,
    )
    three = bench.ceilings.floor(Work(bytes=12 * edges), warm=False).seconds
    over = found["rivals"]["select"]["seconds"]["median"] / three if "select" in found["rivals"] else None
    line = f"at the rate of a copy three readings take {three * 1e6:.4g} us; select takes {over or 0:.2f} times that"
    return found | {"three readings": three, "select over three readings": over, "lines": [*found["lines"], line]}


def _steps(scores: list[Tensor], kept: Tensor) -> dict[str, Rival]:
    """Steps of SGD with momentum; ours finds the thresholds of what the scores become."""
    device, edges = kept.device, sum(s.numel() for s in scores)
    generator = torch.Generator().manual_seed(1)
    grads = [(torch.randn(s.shape, generator=generator) * 1e-3).to(device) for s in scores]
    lr = torch.tensor(0.01, device=device)
    mine, momenta = [s.clone() for s in scores], [torch.full_like(s, -0.0) for s in scores]
    thetas = [Theta(7, index, 0, torch.ones(1, device=device)) for index in range(len(scores))]
    brackets = torch.tensor([NO_BRACKET] * len(scores), dtype=torch.int32, device=device)
    nobody = [None] * len(scores)

    def ours() -> object:
        return score_step(mine, grads, momenta, nobody, thetas, kept, brackets, lr=lr, absolute=True, **SGD)

    def plain(*, fused: bool) -> Callable[[], object]:
        parameters = [torch.nn.Parameter(s.clone()) for s in scores]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        return torch.optim.SGD(parameters, lr=0.01, fused=fused, **SGD).step

    def then_select() -> Callable[[], object]:
        own = [torch.nn.Parameter(s.clone()) for s in scores]
        for parameter, grad in zip(own, grads, strict=True):
            parameter.grad = grad
        step = torch.optim.SGD(own, lr=0.01, fused=True, **SGD).step

        def both() -> object:
            step()
            return select([p.detach() for p in own], kept, nobody)

        return both

    least = Work(bytes=STEP_BYTES * edges)
    return {
        "score_step": Rival(calls=[ours], work=least),
        "torch.optim.SGD": Rival(calls=[plain(fused=False)], work=least),
        "torch.optim.SGD, fused": Rival(calls=[plain(fused=True)], work=least),
        "fused SGD, then select": Rival(calls=[then_select()], work=least + Work(bytes=4 * edges)),
    }


def _step(bench: Bench, shapes: Shapes) -> dict[str, Any]:
    scores, kept = _layers(shapes, 0.5, bench.device)
    rivals = _steps(scores, kept)
    for _ in range(5):  # so that the brackets have found where the thresholds are
        rivals["score_step"].calls[0]()
    base = "torch.optim.SGD, fused"
    against = [("score_step", base), ("score_step", "fused SGD, then select")]
    return bench.compare(rivals, base=base, warm=True, against=against, edges=sum(s.numel() for s in scores))


def cases(sizes: SelectionSizes) -> list[Case]:
    """Selections of each network's scores, with nothing in the cache and with what fits; then steps."""
    found = []
    for network, shapes in sizes.networks:
        for remaining in sizes.remaining:
            for warm in (False, True):
                name = f"select, {network}, {remaining:.0%} kept, {'warm' if warm else 'cold'}"
                found.append(Case(name=name, run=partial(_select, shapes=shapes, remaining=remaining, warm=warm)))
        found.append(Case(name=f"step, {network}", run=partial(_step, shapes=shapes)))
    return found
