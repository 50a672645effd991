"""What searching adds to a dense training step: ResNet-18 on 32x32 images, 11.2 M edges.

    python -m benchmarks.search_step --threads 2 --json search_step.json
    python -m benchmarks.search_step --threads 2 --optimiser adam

Both networks take a step of SGD with momentum, or of Adam, on the same random batch, channels-last: forward,
cross-entropy, backward, step. Their batch norms have no scale and shift. The dense one trains its weights; the search
selects 30 % of the edges, makes the weights from them, trains the scores, and records which edges it has tried
(supermask/training/measures.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._report import Comparison, Options, Report, command
from benchmarks._timing import interleaved
from benchmarks.threshold import by_sort
from supermask.edges.in_model import all_edges, searched_edges
from supermask.edges.selection import selected_once
from supermask.kernels.base.bits import unpack
from supermask.methods.method import EDGE_POPUP, Method
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.networks.norms import set_norm
from supermask.training import measures
from supermask.training.memory import keep_freed_memory
from supermask.training.score_sgd import ScoreSGD
from supermask.training.training import Training

OptimiserName = Literal["sgd", "adam"]
SGD: dict[str, float] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network and its images."""

    name: str
    """In the registry of architectures."""
    size: int
    """Height and width of an image."""
    classes: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Others of its builder."""

    @property
    def architecture(self) -> Architecture:
        return Architecture(name=self.name, arguments={"num_classes": self.classes, **self.arguments})


RESNET18 = Network(name="resnet18", size=32, classes=10)


def step_of(
    model: nn.Module,
    batch: int,
    device: torch.device,
    optimiser: torch.optim.Optimizer | None = None,
    *,
    network: Network = RESNET18,
    dtype: torch.dtype = torch.float32,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[], None]:
    """A training step of `model`, dense or searched, on one random batch.

    Args:
        optimiser: in place of one made for the step.
        dtype: of autocast; float32 is without.
        forward: in place of the model's own, as `torch.compile(model)`.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, network.size, network.size, generator=generator)
    images = images.to(device, memory_format=torch.channels_last)
    labels = torch.randint(network.classes, (batch,), generator=generator).to(device)
    chosen = optimiser or optimiser_of(model)
    through = forward or model
    searching = chosen.searching if isinstance(chosen, ScoreSGD) else partial(selected_once, model)

    def step() -> None:
        with searching():
            with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
                loss = F.cross_entropy(through(images), labels)
            loss.backward()
        chosen.step()
        chosen.zero_grad(set_to_none=True)

    return step


def optimiser_of(model: nn.Module, name: OptimiserName = "sgd") -> torch.optim.Optimizer:
    """SGD with momentum, or Adam, over scores or weights: one launch for all weights, of SGD on a GPU."""
    if name == "adam":
        return Training(optimiser="adam", lr=1e-3).make_optimiser(model)
    if all_edges(model):
        return ScoreSGD(model, **SGD)
    parameters = list(model.parameters())
    return torch.optim.SGD(parameters, **SGD, fused=parameters[0].device.type == "cuda")


def model_of(name: str, device: torch.device, method: Method = EDGE_POPUP, *, network: Network = RESNET18) -> nn.Module:
    """The "dense" network, or the "search" one that a method makes of it."""
    torch.manual_seed(0)
    model = network.architecture.build()
    model = model.to(device).to(memory_format=torch.channels_last).train()
    if name == "search":
        convert(model, seed=0, remaining=0.3, edges=method.edges)
        measures.track(model)
    else:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                set_norm(module, "non_affine")
    return model


def candidates(batch: int, device: torch.device, optimiser: OptimiserName = "sgd") -> dict[str, Callable[[], object]]:
    """The two steps, of networks of their own."""
    models = {name: model_of(name, device) for name in ("dense", "search")}
    return {name: step_of(model, batch, device, optimiser_of(model, optimiser)) for name, model in models.items()}


def check(batch: int, device: torch.device, name: OptimiserName = "sgd") -> None:
    """Raise unless steps move every layer's scores and the masks of the thresholds they find are those of a sort."""
    model = model_of("search", device)
    before = {name: edges.scores.detach().clone() for name, edges in searched_edges(model).items()}
    optimiser = optimiser_of(model, name)
    step = step_of(model, batch, device, optimiser)
    for _ in range(3):
        step()
    with optimiser.searching() if isinstance(optimiser, ScoreSGD) else selected_once(model):
        for layer, edges in searched_edges(model).items():
            if not torch.equal(unpack(edges.mask(), edges.cols).flatten(), by_sort(edges.scores, int(edges.kept))):
                raise RuntimeError(f"layer {layer} does not select its highest scores")
            if torch.equal(edges.scores, before[layer]):
                raise RuntimeError(f"the scores of layer {layer} did not move in a step")


@dataclass(frozen=True, kw_only=True)
class SearchStepOptions(Options):
    batches: tuple[int, ...] = (128, 32)
    """images a step"""
    optimiser: OptimiserName = "sgd"
    """of both networks"""
    default_allocator: bool = False
    """give freed memory back, as recipes do not"""


def run(options: SearchStepOptions) -> Report:
    """A step of either network, at each batch size."""
    device = options.where()
    if device.type == "cpu" and not options.default_allocator:
        keep_freed_memory()
    check(min(options.batches), device, options.optimiser)
    comparisons = []
    for batch in options.batches:
        calls = candidates(batch, device, options.optimiser)
        samples = interleaved(calls, rounds=options.rounds_of(21), warmup=1 if options.quick else 3, device=device)
        checked = "a step moves every layer's scores, and its thresholds select what a stable sort does"
        comparisons.append(Comparison(case=f"batch {batch}", base="dense", seconds=samples, checked=checked))
    title = "A training step of ResNet-18 on 32x32 images"
    return Report(title=title, comparisons=tuple(comparisons), facts={"remaining": 0.3, "optimiser": options.optimiser})


if __name__ == "__main__":
    command(run)
