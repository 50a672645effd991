"""What each method's search adds to training, timed by itself: ResNet-18 on 32x32 images, 11.2 M edges.

    python -m benchmarks.method_work --threads 2 --json method_work.json

As benchmarks.search_work, for edge-popup and the methods that select or weigh edges in another way: selecting, making
weights, the straight-through gradient, what the method does before a step and adds to the loss, and the update of the
scores, over all layers, as a share of a whole dense step of the same round. What a method does from time to time
(IteRand's re-draws) is timed as a call of its own and shared out over the steps between two of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import torch

from benchmarks._report import Comparison, Options, Report, command
from benchmarks._timing import Sample, interleaved
from benchmarks.search_step import model_of, step_of
from benchmarks.search_work import dense_updates, search_work
from supermask.edges.in_model import searched_edges
from supermask.kernels.base.bits import count_bits
from supermask.methods import EP, METHODS, IteRand, Method
from supermask.training.memory import keep_freed_memory

_OF_A_KIND = ("EP", "IteRand", "multicoated", "Biprop", "Gem-Miner", "sampled", "signed")
COMPARED = {label: METHODS[label] for label in _OF_A_KIND} | {"EP, over the network": EP(ranking="network")}


@dataclass(frozen=True, kw_only=True)
class MethodWorkOptions(Options):
    batch: int = 32
    """images of the dense step"""


def run(options: MethodWorkOptions) -> Report:
    """Each method's work beside a dense step."""
    device = options.where()
    if device.type != "cpu":
        return Report(title="A method's own work", skipped=("it is timed on CPU; benchmarks.gpu times the kernels",))
    keep_freed_memory()
    for method in COMPARED.values():
        _check(method, device)
    rounds, warmup = options.rounds_of(15), 1 if options.quick else 3
    works = {f"{label}: work and update": method for label, method in COMPARED.items()}
    calls = {
        "dense step": step_of(model_of("dense", device), options.batch, device),
        "dense update": dense_updates(model_of("search", device), "sgd")["dense update"],
    }
    calls |= {name: _work(method, rounds + warmup, device) for name, method in works.items()}
    redraws = {f"{label}: a re-draw": method for label, method in COMPARED.items() if isinstance(method, IteRand)}
    calls |= {name: _event(method, device) for name, method in redraws.items()}
    samples = interleaved(calls, rounds=rounds, warmup=warmup, device=device)
    dense, update = samples["dense step"].rounds, samples["dense update"].rounds
    notes, facts = [], {}
    for name, method in works.items():
        between = [0.0] * len(dense)
        for redraw, drawing in redraws.items():
            if drawing is method:
                between = [seconds / drawing.every for seconds in samples[redraw].rounds]
        each = zip(samples[name].rounds, update, between, dense, strict=True)
        share = Sample(rounds=tuple((work - plain + now) / step for work, plain, now, step in each))
        label = name.split(":")[0]
        notes.append(
            f"{label}: {share.median:.2%} of a dense step at batch {options.batch} (20 % and 80 % quantiles "
            f"{share.low:.2%} and {share.high:.2%})"
        )
        facts[f"{label}, share of a dense step"] = share.summary()
    checked = "a step moves every layer's scores, and each coat selects as many edges as its rule promises"
    compared = Comparison(case=f"batch {options.batch}", base="dense step", seconds=samples, checked=checked)
    title = "What each method adds to a dense step of ResNet-18 on 32x32 images, by itself"
    return Report(title=title, comparisons=(compared,), notes=tuple(notes), facts=facts)


def _check(method: Method, device: torch.device) -> None:
    """Raise unless a step moves every layer's scores and each coat selects as many edges as its rule promises."""
    model = model_of("search", device, method)
    layers = searched_edges(model)
    before = {name: edges.scores.detach().clone() for name, edges in layers.items()}
    search_work(model, 1, method=method)()
    for name, edges in layers.items():
        if torch.equal(edges.scores, before[name]):
            raise RuntimeError(f"the scores of layer {name} did not move in a step")
        if edges.rule.fixed and [count_bits(coat) for coat in edges.coats()] != edges.kept.tolist():
            raise RuntimeError(f"layer {name} does not select {edges.kept.tolist()} edges")


def _work(method: Method, steps: int, device: torch.device) -> Callable[[], None]:
    return search_work(model_of("search", device, method), steps, method=method)


def _event(method: IteRand, device: torch.device) -> Callable[[], None]:
    """A re-draw of the unselected edges of all layers."""
    model = model_of("search", device, method)
    step = count(method.every - 1, method.every)
    return lambda: method.before_step(model, next(step))


if __name__ == "__main__":
    command(run)
