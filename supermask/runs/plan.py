"""What a recipe would do, without doing it: cycles, edges kept by layer, steps, memory."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from supermask.data.base import Data, Described, Part
from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import selected_edges
from supermask.methods.cycles import Cycle
from supermask.methods.method import Method
from supermask.networks.rates import set_remaining, shared
from supermask.runs.console import table
from supermask.training import optimisers, schedules
from supermask.training.optimisers import called
from supermask.training.training import Training

if TYPE_CHECKING:
    from supermask.runs.configuration import Configuration


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that training holds at its fullest, without the data set and what the allocator and the runtime add.

    Attributes:
        trained: what is trained (scores, or dense weights), its gradient and its moments, float32; of an optimiser of
            one's own the moments are not known, and not among them.
        bits: packed signs, survivors and records of selected edges, one bit an edge each.
        weights: effective weights, which the backward needs.
        activations: kept for the backward; None where they could not be found.
    """

    trained: int
    bits: int
    weights: int
    activations: int | None

    @property
    def total(self) -> int:
        return self.trained + self.bits + self.weights + (self.activations or 0)

    def __str__(self) -> str:
        parts = {
            "scores or weights with gradient and momentum": self.trained,
            "effective weights": self.weights,
            "packed bits": self.bits,
            "activations": self.activations,
        }
        listed = ", ".join(f"{name} {'unknown' if b is None else in_bytes(b)}" for name, b in parts.items() if b != 0)
        about = "at least" if self.activations is None else "about"
        return f"memory: {about} {in_bytes(self.total)} ({listed}); the data set and the runtime come on top"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A stage that trains.

    Attributes:
        cycle: of the search; None for dense training.
        epochs, steps: that it takes.
    """

    cycle: Cycle | None
    epochs: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What of a data set a plan depends on.

    Attributes:
        name: of the set.
        classes: number of labels.
        shape: of one input.
        batch, steps: training batch size, and batches an epoch.
        note: what was assumed, or nothing.
    """

    name: str
    classes: int
    shape: tuple[int, ...]
    batch: int
    steps: int
    note: str

    def __str__(self) -> str:
        return f"{self.name}, batch {self.batch}, {self.steps:,} steps an epoch" + (f" ({self.note})" * bool(self.note))


def sizes(data: Data, seed: int) -> Sizes:
    """The sizes of `data`, which is opened only where they cannot be had otherwise.

    Raises:
        DataMissing: it had to be opened and is not there.
        ValueError: a batch larger than the set.
    """
    name, batch = type(data).__name__, data.batch
    if isinstance(data, Described):
        about = data.about()
        if not 0 < batch <= about.train:
            raise ValueError(f"batch={batch}: expected 1 to {about.train}, the number of training examples")
        return Sizes(
            name=name,
            classes=about.classes,
            shape=about.shape,
            batch=batch,
            steps=about.train // batch,
            note=about.note,
        )
    loaded = data.open(seed=seed, device=torch.device("cpu"))
    inputs, _ = next(loaded.train(Part()))
    return Sizes(
        name=name,
        classes=loaded.classes,
        shape=tuple(inputs.shape[1:]),
        batch=len(inputs),
        steps=loaded.steps,
        note="",
    )


def steps_of_stages(says: "Configuration", own: int, steps: Callable[[Data], int]) -> list[int]:
    """Batches an epoch of each stage that trains: `own` of the recipe's data, and of any other data, once, `steps`."""
    found: list[tuple[Data, int]] = [(says.data, own)]
    counts = []
    for _, data, _ in says.trained:
        known = [count for one, count in found if one is data or one == data]
        if not known:
            found.append((data, steps(data)))
        counts.append(known[0] if known else found[-1][1])
    return counts


def memory(skeleton: nn.Module, data: Sizes, edges: int, cycles: Sequence[Cycle], training: Training) -> Memory:
    """An estimate of what training takes.

    Args:
        skeleton: the dense network on the meta device.
        data: shape and batch.
        edges: masked edges, or dense parameters where nothing is searched.
        cycles: of the search; none for dense training.
        training: precision of weights and activations, and the optimiser.
    """
    width = 2 if training.precision == "bfloat16" else 4
    planes = (2 + 1 + any(cycle.space == "survivors" for cycle in cycles)) if cycles else 0
    moments = optimisers.MOMENTS[training.optimiser] if isinstance(training.optimiser, str) else 0
    saved = _saved(skeleton, data.shape, data.batch)
    return Memory(
        trained=(2 + moments) * 4 * edges,
        bits=planes * edges // 8,
        weights=width * edges if cycles else 0,
        activations=None if saved is None else saved * width // 4,
    )


def _saved(skeleton: nn.Module, shape: Sequence[int], batch: int) -> int | None:
    """Bytes of float32 activations that one forward keeps for its backward."""
    parameters = [parameter.untyped_storage() for parameter in skeleton.parameters()]
    own = set(map(id, parameters))
    held: dict[int, torch.UntypedStorage] = {}  # held, so that no other storage takes an address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()  # the same object as long as it is held
        if id(storage) not in own:
            held[id(storage)] = storage
        return tensor

    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        try:
            skeleton.train()(torch.empty(batch, *shape, device="meta"))
        except Exception:  # some networks look at values, which the meta device has none of
            return None
    return sum(storage.nbytes() for storage in held.values())


def counts(model: nn.Module, cycles: Iterable[Cycle]) -> list[dict[str, int] | None]:
    """Edges that each layer keeps in each of the cycles, hard pruning as it goes; None where the rule alone decides.

    Raises:
        ValueError: an allocation that cannot be met, or one that hard pruning leaves no room for.
    """
    found: list[dict[str, int] | None] = []
    layers, before = searched_edges(model), None
    for number, cycle in enumerate(cycles, start=1):
        room: Mapping[str, int] = before if before and cycle.space == "survivors" else {}
        before = None
        if cycle.remaining is not None:
            rates = shared(model, cycle.remaining, cycle.allocate, room)
            before = {n: e.rule.counts(e, rates[n])[0] if n in rates else int(e.kept[0]) for n, e in layers.items()}
            for name, left in room.items():
                if before[name] > left and not _is_found(layers[name]):
                    raise ValueError(
                        f"cycle {number} keeps {before[name]:,} edges of layer {name}, but hard pruning leaves the "
                        f"{left:,} of cycle {number - 1}: allocate alike in both"
                    )
        found.append(before)
    return found


def _is_found(edges: SearchedEdges) -> bool:
    """Whether what the layer keeps is what a ranking of several layers gives it."""
    return edges.rule.together and not edges.pinned


def show(
    console: Console,
    model: nn.Module,
    stages: Sequence[Planned],
    needs: Memory,
    time: Callable[[int], str],
) -> None:
    """Print a plan.

    Args:
        model: the network, converted where it is searched; its rate is the last cycle's afterwards.
        stages: that train.
        needs: what they take.
        time: what is said of how long so many steps take.
    """
    cycles = [stage.cycle for stage in stages if stage.cycle is not None]
    layers = searched_edges(model) if cycles else {}
    edges = {name: e.count for name, e in layers.items()}
    rows: list[tuple[str, ...]] = []
    kept: list[list[int | None]] = []
    planned = iter(counts(model, cycles) if cycles else ())
    for number, stage in enumerate(stages, start=1):
        taken, cycle = (f"{stage.epochs:,}", f"{stage.steps:,}"), stage.cycle
        if cycle is None:
            rows.append((str(number), "1", "1", "dense", "", "", "all", *taken))
            continue
        if cycle.remaining is not None:
            set_remaining(model, cycle.remaining, cycle.allocate)
        by_layer = next(planned) or selected_edges(model)
        kept.append([None if _is_found(layers[name]) else count for name, count in by_layer.items()])
        total = sum(by_layer.values())
        rates = _rates(cycle, stage.epochs), f"{total / sum(edges.values()):.4g}"
        rows.append((str(number), *rates, cycle.start, cycle.lr, cycle.space, f"{total:,}", *taken))
    columns = "cycle", "remaining", "over all", "scores", "lr", "space", "kept edges", "epochs", "steps"
    console.print(table("plan", columns, rows, left=("scores", "lr", "space")))
    if cycles:
        console.print(_by_layer(edges, kept))
    steps = sum(stage.steps for stage in stages)
    console.print(f"{steps:,} steps in all, {time(steps)}", highlight=False, soft_wrap=True)
    console.print(str(needs), highlight=False, soft_wrap=True)


def _rates(cycle: Cycle, epochs: int) -> str:
    if cycle.remaining is None:
        return ""
    return " to ".join(dict.fromkeys(f"{cycle.rate(epoch, epochs):.4g}" for epoch in (0, max(epochs - 1, 0))))


def _by_layer(edges: Mapping[str, int], kept: Sequence[Sequence[int | None]]) -> Table:
    """Kept edges by layer in each cycle, None where one ranking of layers finds how many; of many cycles a few, evenly
    chosen: the plan's rates give the others."""
    shown = sorted({round(i * (len(kept) - 1) / 3) for i in range(4)}) if len(kept) > 5 else range(len(kept))
    rows = [
        (name, f"{count:,}", *("found" if (k := kept[cycle][layer]) is None else f"{k:,}" for cycle in shown))
        for layer, (name, count) in enumerate(edges.items())
    ]
    columns = ["layer", "edges", *(f"cycle {cycle + 1}" for cycle in shown)]
    return table("kept edges by layer", columns, rows, left=("layer",))


def trained_by(training: Training, method: Method | None) -> str:
    """Optimiser and schedule in a line.

    Args:
        method: of a search; one may have an optimiser or a schedule of its own.
    """
    optimiser, schedule = called(training.optimiser), called(training.schedule)
    said = f"{optimiser}{_said(training, *optimisers.READS.get(optimiser, ()), 'weight_decay')}"
    if method is not None and type(method).optimiser is not Method.optimiser:
        said = f"that of {type(method).__name__}"
    changes = "epoch" if training.per == "epoch" else "step"
    course = f"{schedule}, a rate each {changes}{_said(training, 'lr', *schedules.READS.get(schedule, ()), 'warmup')}"
    if training.tail:
        course += _said(training, "tail", "tail_lr")
    if method is not None and type(method).schedule is not Method.schedule:
        course = f"that of {type(method).__name__}"
    return f"optimiser: {said}; schedule: {course}"


def _said(training: Training, *names: str) -> str:
    values = {name.replace("_", " "): getattr(training, name) for name in names}
    spoken = {name: " ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in values.items()}
    return "".join(f", {name} {value}" for name, value in spoken.items() if value is not False)


def in_bytes(count: int) -> str:
    """A size in one unit."""
    units: list[tuple[str, Callable[[float], str]]] = [("GB", "{:.2f}".format), ("MB", "{:.1f}".format)]
    for power, (unit, text) in zip((1e9, 1e6), units, strict=True):
        if count >= power:
            return f"{text(count / power)} {unit}"
    return f"{count / 1e3:.0f} kB"
