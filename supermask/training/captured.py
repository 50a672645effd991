"""A training step captured in a CUDA graph: all its launches in one, for networks whose host is slower than their GPU.

A replay does what the capture saw: it reads and writes the same memory, and what was a number of Python then is that
number in every replay, a dropout's share for one. So the rate is a tensor, and batches are copied to where the captured
step looks for them. A step is captured again when a tensor that it reads has another place or shape, or a setting of
the optimiser or a module's mode is another one; between replays tensors may change in place.

Evaluation and whatever else runs between replays has memory of its own beside the graph's.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from supermask.checks import SupermaskError
from supermask.data.base import Batch
from supermask.training.hooks import Hooks
from supermask.training.score_sgd import ScoreSGD

Results = tuple[Tensor, Tensor | None]
"""The loss of a step, and how many inputs were classified right, or None."""

Replay = Callable[[], None]

WARMUP = 3
"""Steps taken as they are before the capture: what is made once is made in these, and libraries choose their ways.
Before a capture anew it is one."""


class CaptureError(SupermaskError, ValueError):
    """Steps that cannot be captured; the message says why."""


class CapturedStep:
    """`step` of a batch, replayed from a graph after `WARMUP` calls of a shape.

    Batches of another shape than that of the capture (an epoch's last) are stepped as they are.

    Args:
        step: forward, backward and the optimiser's step; it reads nothing from the device and depends on nothing but
            the batch, the network and the optimiser.
        model: what it trains.
        optimiser: what it trains with; made `capturable`.

    Raises:
        CaptureError: there are no graphs where the network is.
    """

    def __init__(self, step: Callable[[Batch], Results], model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        _check_device(next(model.parameters()).device)
        self._step, self._model, self._optimiser = step, model, optimiser
        self._taken: Counter[Any] = Counter()  # steps of each form of batch
        self._batch: Batch | None = None  # where the captured step reads
        self._captured: tuple[Results, Replay] | None = None
        self._mark: list[Any] = []
        self._side: torch.cuda.Stream | None = None

    def __call__(self, batch: Batch) -> Results:
        form = _form(batch)
        if self._batch is None and self._taken[form] < WARMUP:
            self._taken[form] += 1
            return self._beside(batch)
        if self._batch is not None and form != _form(self._batch):
            return self._step(batch)
        if self._captured is not None and self._mark != self._marked():
            self._captured = None  # which gives its memory back
            return self._beside(batch)
        scores = self._optimiser if isinstance(self._optimiser, ScoreSGD) else None
        if scores is not None:
            scores.before_replay()
        if self._batch is None:
            self._batch = (batch[0].clone(), batch[1].clone())
        else:
            for place, value in zip(self._batch, batch, strict=True):
                place.copy_(value)
        if self._captured is None:
            self._captured = record(partial(self._step, self._batch), batch[0].device)
            self._mark = self._marked()
        (loss, right), replay = self._captured
        replay()
        torch.autograd.graph.increment_version(_held(self._optimiser))
        if scores is not None:
            scores.after_replay()
        return loss.clone(), right

    def _beside(self, batch: Batch) -> Results:
        """The step as it is, on a stream of its own, as torch asks of steps before a capture."""
        device = batch[0].device
        if device.type != "cuda":
            return self._step(batch)
        if self._side is None:  # one for all: each has memory of its own
            self._side = torch.cuda.Stream(device)
        self._side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._side):
            results = self._step(batch)
        torch.cuda.current_stream(device).wait_stream(self._side)
        return results

    def _marked(self) -> list[Any]:
        """What a capture holds on to: where tensors lie, and numbers."""
        found: list[Any] = []
        for tensor in [*self._model.parameters(), *self._model.buffers(), *_held(self._optimiser)]:
            found += (tensor.data_ptr(), tensor.shape, tensor.requires_grad)
        for group in self._optimiser.param_groups:
            numbers = [value for key, value in group.items() if key != "params"]
            found += [value.data_ptr() if isinstance(value, Tensor) else value for value in numbers]
        if isinstance(self._optimiser, ScoreSGD):
            found += [threshold.tau.data_ptr() for threshold in self._optimiser.thresholds.values()]
        return found + [module.training for module in self._model.modules()]


def can_capture(device: torch.device) -> bool:
    """Whether there are graphs for steps on `device`."""
    return device.type == "cuda"


def check_capture(device: torch.device, ranks: int, hooks: Hooks) -> None:
    """Raise CaptureError where steps cannot be captured."""
    _check_device(device)
    if ranks > 1:
        raise CaptureError(f"capture=True in {ranks} processes: a captured step is of one; train with capture=False")
    if not hooks.replayable:
        raise CaptureError(
            f"capture=True with {type(hooks).__name__}'s own loss or step, which a replay would not call: write "
            "replayable = True there if all they do is done on the device, alike in every step, or train with "
            "capture=False"
        )


def _check_device(device: torch.device) -> None:
    if not can_capture(device):
        raise CaptureError(
            f"capture=True on {device}: steps are captured in CUDA graphs; train on a GPU, or without capture"
        )


def capturable(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Make a captured step of `optimiser` read what may change between steps from `device`: its rates, and what it
    counts.

    Raises:
        CaptureError: it is of a kind that torch cannot capture.
    """
    for group in optimiser.param_groups:
        if "capturable" in group:
            group["capturable"] = True
        elif isinstance(optimiser, torch.optim.SGD):
            group["fused"] = True
        else:
            raise CaptureError(
                f"{type(optimiser).__name__} cannot be captured in a CUDA graph: it is no SGD and has no `capturable`; "
                "train with capture=False, or with an optimiser that has"
            )
        rate = group["lr"]
        if not isinstance(rate, Tensor) or rate.device != device:  # one loaded may lie on the CPU
            group["lr"] = torch.tensor(float(rate), dtype=torch.float32, device=device)
    for state in optimiser.state.values():
        if isinstance(step := state.get("step"), Tensor):
            state["step"] = step.to(device)


def record(call: Callable[[], Results], device: torch.device) -> tuple[Results, Replay]:
    """Capture `call`, which runs nothing: what it returns, and what a replay is. Other threads go on loading data."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(device)
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        results = call()
    return results, graph.replay


def _form(batch: Batch) -> tuple[Any, ...]:
    return tuple((tensor.shape, tensor.dtype) for tensor in batch)


def _held(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """Tensors that a step of `optimiser` writes."""
    slots = [value for state in optimiser.state.values() for value in state.values() if isinstance(value, Tensor)]
    return [*(parameter for group in optimiser.param_groups for parameter in group["params"]), *slots]
