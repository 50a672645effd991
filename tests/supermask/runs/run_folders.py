"""Run folders as runs write them, of a search that walks at random: masks, ranks and ratios agree with one another."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from supermask.kernels.base.bits import pack

LAYERS = {"fc1": (32, 64), "fc2": (24, 32), "fc3": (10, 24)}
HALVED = (0.5, 0.25, 0.125)


def write_run(
    path: Path,
    *,
    name: str = "digits_soft_iep",
    seed: int = 0,
    rates: Sequence[float] = HALVED,
    space: str = "all",
    dense: bool = False,
    epochs: int = 4,
    lr: float = 0.3,
    layers: Mapping[str, tuple[int, int]] = LAYERS,
    bare: bool = False,
    finished: bool = True,
) -> Path:
    """Write a run folder.

    Args:
        rates: of its cycles.
        space: of the cycles after the first: "survivors" is hard iEP.
        dense: a run that trains the weights.
        bare: without the files and fields that a run may lack: ranks, times, masks, layers.
        finished: with the event of a finished run.
    """
    path.mkdir(parents=True)
    _write_config(path, name=name, seed=seed, rates=rates, space=space, dense=dense, epochs=epochs, lr=lr)
    random = np.random.default_rng([seed, *name.encode()])
    metrics: list[dict[str, Any]] = []
    ranks: list[dict[str, Any]] = []
    if dense:
        for epoch in range(1, epochs + 1):
            metrics.append(_epoch(1, epoch, epoch / epochs, 1.0, 0.0, lr))
        edges = sum(rows * cols for rows, cols in layers.values())
        nothing = dict.fromkeys(("dying", "explored", "apparent", "apparent_of_all", "dying_cumulative"), 0.0)
        metrics += [
            {"event": "cycle", "cycle": 1, "rate": 1.0, "remaining": 1.0, "kept": edges, "edges": edges, "loss": 0.1,
             "train_accuracy": 0.99, **nothing, "dead_units": {}},
            {"event": "evaluate", "cycle": 1, "accuracy": 0.98 + 0.001 * seed},
        ]  # fmt: skip
    else:
        search = _Search(layers, random)
        ranks.append({"event": "edges", "layers": list(layers), "edges": search.sampled})
        ranks.append({"event": "ranks", "cycle": 1, "epoch": 0, **search.ranks(rates[0])})
        for cycle, rate in enumerate(rates, start=1):
            search.begin(hard=space == "survivors" and cycle > 1)
            for part in range(1, epochs + 1):
                search.step(rate)
                epoch = (cycle - 1) * epochs + part
                dying = 1 - search.count("ever") / search.edges
                remaining = search.count("mask") / search.edges
                metrics.append(_epoch(cycle, epoch, part / epochs, remaining, dying, lr))
                ranks.append({"event": "ranks", "cycle": cycle, "epoch": epoch, **search.ranks(rate)})
            event = {"event": "cycle", "cycle": cycle, "rate": rate, **search.measured()}
            metrics.append(event | ({} if bare else {"layers": search.layers()}))
            accuracy = 0.9 + 0.1 * rate + 0.002 * random.standard_normal()
            evaluate = {"event": "evaluate", "cycle": cycle, "accuracy": accuracy, "recalibrated": accuracy + 0.001}
            metrics.append(evaluate)
            if not bare:
                search.write_masks(path / "masks" / f"cycle-{cycle}.safetensors")
    if finished:
        metrics.append({"event": "end"})
    write_lines(path / "metrics.jsonl", metrics)
    if not bare:
        times = [
            {name: event[name] for name in ("event", "cycle", "epoch", "step")} | {"seconds": 0.5, "data_wait": 0.1}
            for event in metrics
            if event["event"] == "epoch"
        ]
        write_lines(path / "times.jsonl", times)
        if ranks:
            write_lines(path / "ranks.jsonl", ranks)
    return path


def write_ep(
    parent: Path, *, seeds: Sequence[int] = (0,), rates: Sequence[float] = HALVED, **options: Any
) -> list[Path]:
    """EP: a run for each seed and rate."""
    return [
        write_run(parent / f"ep-{rate}-{seed}", name="digits_ep", seed=seed, rates=[rate], **options)
        for seed in seeds
        for rate in rates
    ]


def write_lines(file: Path, events: Sequence[Mapping[str, Any]]) -> None:
    """A file of JSON lines."""
    file.write_text("".join(json.dumps(event) + "\n" for event in events))


def edit_config(path: Path, **changes: Any) -> None:
    """Change fields of a run's recipe."""
    file = path / "config.json"
    config = json.loads(file.read_text())
    config["recipe"] |= changes
    file.write_text(json.dumps(config))


class _Search:
    """Scores that walk at random, and the edges that they select."""

    def __init__(self, layers: Mapping[str, tuple[int, int]], random: np.random.Generator) -> None:
        self.random = random
        self.shapes = dict(layers)
        self.scores = {
            name: random.standard_normal(rows * cols) / np.sqrt(cols) for name, (rows, cols) in layers.items()
        }
        self.alive = {name: np.ones(rows * cols, dtype=bool) for name, (rows, cols) in layers.items()}
        self.mask = {name: alive.copy() for name, alive in self.alive.items()}
        self.ever: dict[str, Any] = {}
        self.ever_in_all = {name: np.zeros_like(alive) for name, alive in self.alive.items()}
        self.edges = sum(map(len, self.scores.values()))
        everywhere = [(index, flat) for index, s in enumerate(self.scores.values()) for flat in range(len(s))]
        self.sampled = [list(everywhere[at]) for at in sorted(random.choice(self.edges, 200, replace=False))]

    def begin(self, *, hard: bool) -> None:
        if hard:
            self.alive = {name: mask.copy() for name, mask in self.mask.items()}
        self.ever = {name: np.zeros_like(alive) for name, alive in self.alive.items()}

    def step(self, rate: float) -> None:
        for name, alive in self.alive.items():
            scores = self.scores[name]
            walked = self.random.standard_normal(len(scores)) * 0.25 / np.sqrt(self.shapes[name][1])
            self.scores[name] = scores + walked * alive
            self.mask[name] = np.zeros(len(scores), dtype=bool)
            self.mask[name][self._order(name)[: max(1, round(rate * len(scores)))]] = True
            self.ever[name] |= self.mask[name]
            self.ever_in_all[name] |= self.ever[name]

    def _order(self, name: str) -> Any:
        return np.argsort(-np.where(self.alive[name], np.abs(self.scores[name]), -1.0), kind="stable")

    def ranks(self, rate: float) -> dict[str, Any]:
        places = []
        for name in self.scores:
            place = np.empty(len(self.scores[name]))
            place[self._order(name)] = np.arange(len(place)) / len(place)
            places.append(place)
        ranks = [float(places[layer][flat]) for layer, flat in self.sampled]
        return {"ranks": ranks, "selected": [int(rank < rate) for rank in ranks]}

    def count(self, what: str) -> int:
        return int(sum(bits.sum() for bits in getattr(self, what).values()))

    def measured(self) -> dict[str, Any]:
        kept, ever, alive = (self.count(what) for what in ("mask", "ever", "alive"))
        dead = {name: int((~m.reshape(self.shapes[name]).any(1)).sum()) for name, m in self.mask.items()}
        return {
            "remaining": kept / self.edges, "kept": kept, "edges": self.edges, "loss": 0.3, "train_accuracy": 0.95,
            "dying": 1 - ever / self.edges, "explored": (ever - kept) / self.edges,
            "apparent": (alive - ever) / alive, "apparent_of_all": (alive - ever) / self.edges,
            "dying_cumulative": 1 - self.count("ever_in_all") / self.edges, "dead_units": dead,
        }  # fmt: skip

    def layers(self) -> dict[str, Any]:
        found = {}
        for name, scores in self.scores.items():
            high = float(np.abs(scores).max())
            counts = np.histogram(np.abs(scores), bins=64, range=(0.0, high))[0].tolist()
            histogram = {"low": 0.0, "high": high, "counts": counts}
            kept, ever = int(self.mask[name].sum()), int(self.ever[name].sum())
            found[name] = {"edges": len(scores), "kept": kept, "ever": ever, "scores": histogram}
        return found

    def write_masks(self, file: Path) -> None:
        file.parent.mkdir(exist_ok=True)
        bits = {name: pack(torch.from_numpy(mask.reshape(self.shapes[name]))) for name, mask in self.mask.items()}
        save_file(bits, file, metadata={"cols": json.dumps({name: cols for name, (_, cols) in self.shapes.items()})})


def _epoch(cycle: int, epoch: int, share: float, remaining: float, dying: float, lr: float) -> dict[str, Any]:
    return {
        "event": "epoch", "cycle": cycle, "epoch": epoch, "step": 31 * epoch, "lr": lr, "loss": 0.2 / share,
        "train_accuracy": 0.85 + 0.1 * share, "remaining": remaining, "dying": dying,
    }  # fmt: skip


def _write_config(
    path: Path, *, name: str, seed: int, rates: Sequence[float], space: str, dense: bool, epochs: int, lr: float
) -> None:
    stages: list[dict[str, Any]] = [{"stage": "Train", "length": 1}, {"stage": "Evaluate", "recalibrate": True}]
    if not dense:
        stages = []
        for cycle, rate in enumerate(rates):
            later = cycle > 0
            inside = {"remaining": rate, "scores": "inherit" if later else "initial", "lr": "rewind", "length": 1}
            inside["space"] = space if later else "all"
            stages += [{"stage": "Search", "cycle": inside}, {"stage": "Evaluate", "recalibrate": True}]
        stages.append({"stage": "Export", "file": "ticket.safetensors"})
    recipe = {
        "name": name,
        "data": {"type": "Digits", "batch": 32},
        "network": {"name": "mlp", "arguments": {"sizes": [64, 32, 24, 10]}},
        "training": {"epochs": epochs, "lr": lr, "momentum": 0.9},
        "conversion": {"overrides": {}, "weights": "signed_constant"},
        "stages": stages,
        "run": {"seed": seed, "folder": str(path), "device": "cpu"},
        "device": "cpu",
    }
    text = json.dumps({"recipe": recipe, "environment": {"python": "3.11"}}, indent=2)
    (path / "config.json").write_text(text)
