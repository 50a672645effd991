"""A training step in a form a user can run it in, checked for what is exact of it; and the least that it does."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from benchmarks.gpu.floors import Work
from benchmarks.gpu.timer import Timer
from benchmarks.search_step import Network, model_of, step_of
from benchmarks.threshold import by_sort
from supermask.edges.in_model import searched_edges
from supermask.kernels.base.bits import unpack

__all__ = ["FORMS", "MODES", "Form", "Setting", "check_search", "least", "prepared"]

Form = Literal["compiled", "captured", "compiled, captured", "reduce-overhead", "eager", "max-autotune"]
FORMS: tuple[Form, ...] = get_args(Form)
MODES = "reduce-overhead", "max-autotune"
"""Of the compiler, which captures graphs itself in them."""
UPDATE = 20  # bytes an edge: weight or score, and momentum, read and written, gradient read


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained, on what, in which dtype."""

    network: Network
    batch: int
    dtype: torch.dtype

    @property
    def name(self) -> str:
        of, dtype = self.network, str(self.dtype).removeprefix("torch.")
        return f"{of.name.rpartition('/')[2]}, {of.size}x{of.size}, batch {self.batch}, {dtype}"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A step that can be timed."""

    step: Callable[[], object]
    model: nn.Module
    graphs: int
    """That the compiler made."""
    skips: int
    """How often it captured none where it was to, and says why in its log."""


def prepared(kind: str, form: Form, setting: Setting, device: torch.device, timer: Timer, pool: Any = None) -> Prepared:
    """A step of the "dense" or the "search" network, compiled and captured as `form` says.

    Args:
        pool: of the timer, for a capture.
    """
    model = model_of(kind, device, network=setting.network)
    forward: Callable[[Tensor], Tensor] | None = None
    graphs, skips = _graphs(), _skips()
    if form.startswith("compiled"):
        forward = torch.compile(model)
    elif form in MODES:
        forward = torch.compile(model, mode=form)
    step = step_of(model, setting.batch, device, network=setting.network, dtype=setting.dtype, forward=forward)
    if form in MODES:
        step = _marked(step)
    run: Callable[[], object] = timer.capture(step, pool=pool) if form.endswith("captured") else step
    for _ in range(3):  # a compiler may record, and compile again, at the second and third call
        run()
    timer.wait()
    return Prepared(step=run, model=model, graphs=_graphs() - graphs, skips=_skips() - skips)


def _marked(step: Callable[[], None]) -> Callable[[], None]:
    """Told apart from the step before, whose results torch's graphs may then overwrite."""

    def marked() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        step()

    return marked


def _graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def _skips() -> int:
    from torch._dynamo.utils import counters

    return int(counters["inductor"]["cudagraph_skips"])


def forget_compiled() -> None:
    """Free what the compiler holds, its graphs' memory too."""
    torch._dynamo.reset()
    gc.collect()


def _by_sort(model: nn.Module) -> dict[str, Tensor]:
    """What each layer selects of its scores as they are: boolean [rows, cols]."""
    layers = searched_edges(model).items()
    return {name: by_sort(edges.scores, int(edges.kept)).view(edges.rows, edges.cols) for name, edges in layers}


def check_search(step: Callable[[], object], model: nn.Module, steps: int = 3) -> None:
    """Raise unless each of some steps selects what a sort does, in every layer, and moves its scores."""
    layers = searched_edges(model)
    for count in range(steps):
        expected, before = _by_sort(model), {name: edges.scores.detach().clone() for name, edges in layers.items()}
        for edges in layers.values():
            assert edges.ever is not None, "the step records what it selects"
            edges.ever.zero_()
        step()
        for name, edges in layers.items():
            assert edges.ever is not None
            found = unpack(edges.ever, edges.cols)
            if not torch.equal(found, expected[name]):
                wrong = int((found != expected[name]).sum())
                raise RuntimeError(
                    f"step {count + 1}, layer {name}: {wrong} of {edges.count} edges are selected or left where a sort "
                    f"of the scores does not; {int(found.sum())} selected, {int(edges.kept)} kept"
                )
            if torch.equal(edges.scores, before[name]) or not bool(edges.scores.isfinite().all()):
                raise RuntimeError(f"step {count + 1}, layer {name}: the scores did not move, or not to numbers")


def least(kind: str, setting: Setting) -> Work:
    """Of a step: three products a layer (two for the first), its input and output, and their gradients, moved.

    Forward reads the input and writes the output; backward reads the input and the gradient of the output and writes
    that of the input. Weights, which are smaller, are moved by the update. What normalisation moves is not counted.
    """
    model = setting.network.architecture.skeleton()
    total = {"operations": 0.0, "numbers": 0.0, "edges": 0.0}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        (x,), weight = inputs, module.weight
        assert isinstance(weight, Tensor)
        products = 2 if not total["edges"] else 3
        total["operations"] += products * 2 * output.numel() * weight[0].numel()
        total["numbers"] += products * x.numel() + 2 * output.numel()
        total["edges"] += weight.numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(note)
    size = setting.network.size
    model.train()(torch.empty(setting.batch, 3, size, size, device="meta"))
    update = UPDATE + (4 if kind == "search" else 0)  # weights are made of scores
    moved = setting.dtype.itemsize * total["numbers"] + update * total["edges"]
    return Work(bytes=moved, operations=total["operations"], dtype=setting.dtype)
