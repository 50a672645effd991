"""Layers stepped by score_step, and by torch.optim.SGD and a selection; scores that come to be what a test wants."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from supermask.kernels.base.theta import Theta
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from supermask.kernels.select.op import select
from tests.devices import On, home
from tests.kernels.cases import theta_of, theta_plain
from tests.kernels.paths import COMPILED, guarded, pack_plain, path, random_mask, random_reals, unpack_plain

INT32 = -(2**31), 2**31 - 1
NUMBERS = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How scores are stepped."""

    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    absolute: bool = True


@dataclass(kw_only=True)
class Layer:
    """One layer, and what a step changes."""

    scores: Tensor
    theta: Theta
    kept: int
    survivors: Tensor | None = None
    bracket: tuple[int, int] = NO_BRACKET
    momentum: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.momentum = torch.full_like(self.scores, -0.0)

    @property
    def sizes(self) -> tuple[int, int]:
        return self.scores.shape[0], self.scores.numel() // self.scores.shape[0]


def steps_of(layers: list[Layer], rule: Rule, grads: list[list[Tensor]], name: str) -> Iterator[list[Tensor]]:
    """After each step, for each layer: scores, momentum, tau, last_tied; then the brackets."""
    with path(name) as on:
        layers = on(layers)
    brackets = on(torch.tensor([layer.bracket for layer in layers], dtype=torch.int32))
    kept = on(torch.tensor([layer.kept for layer in layers]))
    survivors = [layer.survivors for layer in layers]
    for incoming in grads:
        with path(name), guarded():
            tau, last_tied = score_step(
                [layer.scores for layer in layers],
                on(incoming),
                [layer.momentum if rule.momentum else None for layer in layers],
                survivors,
                [layer.theta for layer in layers],
                kept,
                brackets,
                **vars(rule),
            )
        states = [layer.scores for layer in layers] + [layer.momentum for layer in layers if rule.momentum]
        yield [home(tensor).clone() for tensor in (*states, tau, last_tied, brackets)]


def plain_steps(layers: list[Layer], rule: Rule, grads: list[list[Tensor]]) -> Iterator[list[Tensor]]:
    """The same from torch.optim.SGD, one tensor at a time, and a selection of all scores."""
    scores = [torch.nn.Parameter(layer.scores.clone()) for layer in layers]
    sgd = torch.optim.SGD(
        scores,
        lr=rule.lr,
        momentum=rule.momentum,
        weight_decay=rule.weight_decay,
        nesterov=rule.nesterov,
        foreach=False,
    )
    kept = torch.tensor([layer.kept for layer in layers])
    survivors = [layer.survivors for layer in layers]
    for incoming in grads:
        for s, layer, grad in zip(scores, layers, incoming, strict=True):
            matrix = s.detach().view(layer.sizes)
            g = grad.view(layer.sizes) * theta_plain(layer.theta, *layer.sizes)
            g = torch.where(matrix < 0, -g, g) if rule.absolute else g
            if layer.survivors is not None:
                g = torch.where(unpack_plain(layer.survivors, layer.sizes[1]), g, 0.0)
            s.grad = g.view(s.shape)
        sgd.step()
        with path("torch"):
            threshold = select(scores, kept, survivors, rule.absolute)
        momenta = [sgd.state[s]["momentum_buffer"] for s in scores if rule.momentum]
        yield [tensor.detach().clone() for tensor in (*scores, *momenta, *threshold)]


def steered(targets: list[Tensor], *, absolute: bool, **changes: Any) -> tuple[Layer, Rule, list[list[Tensor]]]:
    """A layer whose scores come to be `targets`, one after the other (where their differences are exact)."""
    rows, cols = targets[0].shape
    theta = Theta(0, 0, 0, torch.ones(1), signs=torch.zeros(rows, 4 * -(-cols // 128), dtype=torch.int32))
    layer = Layer(scores=targets[0], theta=theta, kept=changes.pop("kept", targets[0].numel() // 2), **changes)
    grads = []
    for now, then in pairwise(targets):
        grads.append([(now - then) * (torch.where(now < 0, -1.0, 1.0) if absolute else 1.0)])
    return layer, Rule(lr=1.0, absolute=absolute), grads


ROWS, COLS = SIZES = (300, 128) if COMPILED else (3, 128)  # two tiles
EDGES = ROWS * COLS
KEPT = EDGES // 4 + 4


def room(edges: int) -> int:
    """How many edges of a layer a bracket may hold."""
    return min(edges, edges // 16 + (1024 if COMPILED else 16))


def spread(seed: int = 0) -> Tensor:
    """Multiples of 2**-10, so that sums are exact; some tie."""
    return (random_reals(SIZES, seed) * 1024).round() / 1024


def some(density: float) -> Tensor:
    return pack_plain(random_mask(*SIZES, density, 3))


def arguments(scores: Tensor, grad: Tensor, *, rule: Rule | None = None, **changes: Any) -> Callable[[], Any]:
    """A call for one layer, with `changes`; what is not given lies where the scores do."""
    rows = scores.shape[0]
    made: dict[str, Any] = {
        "momenta": [None],
        "survivors": [None],
        "thetas": [theta_of(rows, scores.numel() // rows, "seed")],
        "kept": torch.tensor([100]),
        "brackets": torch.tensor([NO_BRACKET], dtype=torch.int32),
    }
    given = On(scores.device)(made) | vars(rule or Rule()) | changes
    return lambda: score_step([scores], [grad], **given)
