"""SGD over scores in one pass: the gradient of the effective weights goes in, scores and the next mask come out.

    optimiser = ScoreSGD(model, lr=0.1, momentum=0.9, weight_decay=1e-4)
    with optimiser.searching():  # forward and backward
        loss(model(x), y).backward()
    optimiser.step()

A step in a CUDA graph reads its thresholds where the replay before left them, since they stay in place; between replays
`before_replay` and `after_replay` look after what else changed (supermask/training/captured.py does all of it).

A search step of torch.optim.SGD makes the gradient of the scores from that of the weights, reads it again to update
them, and reads the scores once more to select. Here one kernel does all of it (kernels/score_step/op.py), in the
rounding of torch.optim.SGD on CPU, and the selection's thresholds are there before the next forward asks for them.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from supermask.edges.in_model import searched_edges
from supermask.edges.rules import Rule
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import Found, State, by_rule, one_selection
from supermask.kernels.base.keys import Threshold
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from supermask.training.first_step import warn_of_untouched


class Left(NamedTuple):
    """What a step of some layers leaves to the next, always in the same place: a captured one looks for it there.

    Attributes:
        brackets: as in kernels/score_step/op.py.
        thresholds: of all layers, and `each`, of each, in the same memory.
    """

    brackets: Tensor
    thresholds: Threshold
    each: list[Threshold]


class ScoreSGD(torch.optim.SGD):
    """torch.optim.SGD of a searched network, fused for its scores; state dicts are those of torch.optim.SGD.

    Args:
        model: a network with searched layers; all that it trains is stepped.
        lr: as in torch.optim.SGD. A tensor (float32 [] or [1], on the device of the scores) is read where a step runs:
            changed in place, it is the rate of the next one, captured or not. torch looks at it here, once, and at each
            step of what is trained beside the scores, unless `param_groups[1]["fused"]` is True.
        momentum, nesterov: as in torch.optim.SGD.
        weight_decay: of the scores; biases and normalisation do not decay.

    Raises:
        ValueError: nothing in `model` is searched, two layers share their scores, or a number is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float | Tensor,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.model = model
        scores = [edges.scores for edges in searched_edges(model).values()]
        held = {id(parameter) for parameter in scores}
        if len(held) < len(scores):
            raise ValueError(
                "two layers share one tensor of scores, which a step would update twice: give each its own, or step "
                "with torch.optim.SGD"
            )
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
        groups: list[dict[str, Any]] = [{"params": scores, "weight_decay": weight_decay}]
        if others:
            groups.append({"params": others, "weight_decay": 0.0})
        super().__init__(groups, lr=lr, momentum=momentum, nesterov=nesterov)
        self._found: dict[SearchedEdges, Found] = {}
        self._left: dict[tuple[SearchedEdges, ...], Left] = {}
        self._lr: Tensor | None = None  # where a step finds a rate that is a float
        self._watches: list[Any] = []  # on scores whose gradient is that of the weights
        self._begun = False  # whether a step was taken
        self._stepped = False  # on gradients of weights
        self._used: dict[SearchedEdges, State] = {}  # what the layers were when these gradients were made
        _watch_others(weakref.ref(self))

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Around forward and backward, once a step or, to accumulate gradients, several times.

        Selects all layers at once, most often without looking at a score (`one_selection`). Gradients of scores made
        inside are those of the effective weights, which `step` completes: who clips or reads them sees these, and the
        loss may depend on scores through the weights alone.

        Raises:
            RuntimeError: scores have gradients from a backward outside of such a block, or change inside.
        """
        fused = [edges for edges in searched_edges(self.model).values() if edges.rule.fused]
        if any(edges.scores.grad is not None for edges in fused):
            if self._stepped:
                raise RuntimeError(
                    "the gradients of the last step are still there: call the optimiser's zero_grad first"
                )
            if not self._watches:
                raise RuntimeError(
                    "scores have gradients from a backward outside of searching(): step or zero_grad first, and keep "
                    "every backward of a step inside"
                )
        self._stepped = False
        self._unwatch()
        try:
            with one_selection(self.model, self._found, straight_through=False):
                yield
        finally:
            trained = [edges.scores for edges in fused if edges.scores.requires_grad]
            self._watches = [scores.register_hook(_refuse) for scores in trained]
            self._used = {edges: State(edges) for edges in fused}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update what has a gradient; a `closure` is called first, with gradients on, and its value returned.

        Gradients made outside of `searching` are stepped as torch.optim.SGD does.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._begun:
            self._begun = True
            warn_of_untouched(self.model, of_weights=bool(self._watches))
        if not self._watches:
            super().step()
            return loss
        self._stepped = True
        everything = [edges for edges in self._used if edges.scores.grad is not None]
        self._check(everything)
        for rule, layers in by_rule(everything):
            self._step_scores(rule, tuple(layers))
        waiting = [(edges.scores, edges.scores.grad) for edges in everything]
        for parameter, _ in waiting:
            parameter.grad = None
        if any(parameter.grad is not None for group in self.param_groups for parameter in group["params"]):
            super().step()  # of biases, normalisation, and scores whose rule is not served
        for parameter, grad in waiting:
            parameter.grad = grad
        return loss

    @property
    def thresholds(self) -> dict[SearchedEdges, Threshold]:
        """What the last step has found, where a captured one reads it."""
        return {edges: found.threshold for edges, found in self._found.items()}

    @torch.no_grad()
    def before_replay(self) -> None:
        """Before a captured step is replayed: thresholds of scores, kept counts or survivors that changed since they
        were found are found again, where the captured step reads them."""
        for rule, layers in by_rule(self._found):
            if all(self._found[edges].state.holds(edges) for edges in layers):
                continue
            for edges, threshold in zip(layers, rule.found(layers), strict=True):
                held = self._found[edges].threshold
                for place, value in zip(held, threshold, strict=True):
                    place.copy_(value)
                self._found[edges] = Found(state=State(edges), threshold=held)

    def after_replay(self) -> None:
        """After a captured step was replayed, and its writes were counted: the thresholds are of what it wrote."""
        for edges, found in self._found.items():
            self._found[edges] = Found(state=State(edges), threshold=found.threshold)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self._stepped = False
        self._unwatch()

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a ScoreSGD holds its model: copy or save its state_dict(), and load that into one of the copy")

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What `load_state_dict` ends with. What a captured step reads stays where it lies and takes the value loaded:
        momentum, and a rate that is a tensor (a float stays a float). torch would put copies in their places. `fused`
        stays as it is.

        Raises:
            ValueError: groups that share a tensor are to have several rates.
        """
        held = [group["lr"] for group in self.param_groups]
        loaded = [float(group["lr"]) for group in state["param_groups"]]
        for rate in held:
            shared = [value for other, value in zip(held, loaded, strict=True) if other is rate]
            if isinstance(rate, Tensor) and len(set(shared)) > 1:
                raise ValueError(
                    f"the state has the rates {shared} for groups that share one tensor: give each group its own, as "
                    "group['lr'] = group['lr'].clone() does, and load again"
                )
        for group, own, value in zip(state["param_groups"], self.param_groups, loaded, strict=True):
            rate = own["lr"]
            group["lr"] = rate.fill_(value) if isinstance(rate, Tensor) else value
            group["fused"] = own.get("fused")
        for parameter, slots in state["state"].items():
            momentum, found = self.state.get(parameter, {}).get("momentum_buffer"), slots.get("momentum_buffer")
            if isinstance(momentum, Tensor) and isinstance(found, Tensor) and momentum.shape == found.shape:
                slots["momentum_buffer"] = momentum.copy_(found)
        super().__setstate__(state)

    def _check(self, layers: Sequence[SearchedEdges]) -> None:
        group = self.param_groups[0]
        if not isinstance(group["lr"], Tensor) and group["lr"] < 0:
            raise ValueError(f"lr={group['lr']}: expected none below 0")
        for name, plain in (("maximize", False), ("dampening", 0)):
            if group.get(name, plain) != plain:
                raise ValueError(f"{name}={group[name]!r}: ScoreSGD steps scores with {plain!r}")
        stepped = {id(parameter) for parameter in group["params"]}
        if any(id(edges.scores) not in stepped for edges in layers):
            raise ValueError("scores are in no parameter group or in another than the first: ScoreSGD has them in that")
        if not all(self._used[edges].holds(edges) for edges in layers):
            raise RuntimeError(
                "scores, remaining or survivors changed between the gradients and their step, or these were stepped "
                "already: call zero_grad, then forward and backward again"
            )

    def _step_scores(self, rule: Rule, layers: tuple[SearchedEdges, ...]) -> None:
        """The layers of one rule, whose first threshold is found on the way."""
        group = self.param_groups[0]
        momentum = group["momentum"]
        scores = [edges.scores for edges in layers]
        device = scores[0].device
        if layers not in self._left or self._left[layers].brackets.device != device:
            self._left[layers] = _nothing_left(len(layers), device)
        left = self._left[layers]
        thetas = [edges.gradient() or edges.theta() for edges in layers]
        found = score_step(
            [parameter.detach() for parameter in scores],
            [parameter.grad for parameter in scores if parameter.grad is not None],
            [self._momentum(parameter) if momentum else None for parameter in scores],
            [edges.survivors for edges in layers],
            [theta.made(edges.rows, edges.cols, device) for theta, edges in zip(thetas, layers, strict=True)],
            torch.cat([edges.kept[:1] for edges in layers]),
            left.brackets,
            lr=self._rate(group["lr"], device),
            momentum=momentum,
            weight_decay=group["weight_decay"],
            nesterov=group["nesterov"],
            absolute=rule.absolute,
        )
        for place, value in zip(left.thresholds, found, strict=True):
            place.copy_(value)
        for edges, threshold in zip(layers, left.each, strict=True):
            if len(edges.kept) == 1:
                self._found[edges] = Found(state=State(edges), threshold=threshold)

    def _rate(self, lr: float | Tensor, device: torch.device) -> Tensor:
        if isinstance(lr, Tensor):
            return lr
        if self._lr is None or self._lr.device != device:
            self._lr = torch.empty((), dtype=torch.float32, device=device)
        return self._lr.fill_(lr)  # by a launch, which waits for nothing

    def _momentum(self, scores: nn.Parameter) -> Tensor:
        state = self.state[scores]
        if state.get("momentum_buffer") is None:
            # momentum * -0.0 + g is g to the bit, as a first step has it; with +0.0 a g of -0.0 would change its sign.
            state["momentum_buffer"] = torch.full_like(scores, -0.0)
        buffer: Tensor = state["momentum_buffer"]
        return buffer

    def _unwatch(self) -> None:
        for handle in self._watches:
            handle.remove()
        self._watches = []


def _nothing_left(layers: int, device: torch.device) -> Left:
    brackets = torch.tensor([NO_BRACKET] * layers, dtype=torch.int32, device=device)
    tau = torch.zeros(layers, dtype=torch.int32, device=device)
    thresholds = Threshold(tau, torch.zeros(layers, dtype=torch.int64, device=device))
    each = [Threshold(*pair) for pair in zip(*(part.split(1) for part in thresholds), strict=True)]
    return Left(brackets, thresholds, each)


def _refuse(_: Tensor) -> None:
    raise RuntimeError(
        "scores may hold gradients of the weights from searching(), and this backward is outside of it: call the "
        "optimiser's zero_grad first, or keep every backward of a step inside"
    )


def _watch_others(reference: "weakref.ref[ScoreSGD]") -> None:
    """Have other optimisers' steps over the same scores refused or noticed: some leave version counters alone."""

    def other(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        own = reference()
        if own is None or optimiser is own:
            return
        held = {id(parameter) for parameter in own.param_groups[0]["params"]}
        if any(id(parameter) in held for group in optimiser.param_groups for parameter in group["params"]):
            if own._watches:
                raise RuntimeError(
                    f"{type(optimiser).__name__} steps over scores whose gradients are those of the weights: step with "
                    "the ScoreSGD whose searching() made them, or make them outside of it"
                )
            own._found.clear()

    handle = register_optimizer_step_pre_hook(other)
    owner = reference()
    if owner is not None:
        weakref.finalize(owner, handle.remove)
