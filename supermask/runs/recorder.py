"""What a cycle leaves in the run folder: a recorder is told of its begin, of each epoch and of its end."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from safetensors.torch import save as to_safetensors
from torch import nn

from supermask.edges.in_model import all_edges, searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import selected_once
from supermask.kernels.base.bits import popcount
from supermask.runs.folder import RunFolder
from supermask.runs.records import (
    CycleResult,
    EdgeRanks,
    Epoch,
    EpochTime,
    Histogram,
    LayerRecord,
    SampledEdges,
)
from supermask.runs.validation import NOT_VALIDATED, Chosen
from supermask.training.loop import EpochResult, Loop
from supermask.training.measures import Cumulative, dead_units, dying, ever_selected, track
from supermask.training.traces import Traces, histogram


class Recorder:
    """Records dense training: one cycle with all edges kept.

    Args:
        model: the network.
        folder: of the run.
        number: of the cycle, from 1.
    """

    def __init__(self, model: nn.Module, folder: RunFolder, number: int) -> None:
        self.model = model
        self.folder = folder
        self.number = number

    def begin(self) -> None:
        """Before the first step of the cycle; not again when it goes on after a stop."""

    def epoch(self, loop: Loop, lr: float, trained: EpochResult, validation: float | None = None) -> Epoch:
        """After an epoch of `loop` at the rate `lr`, with the accuracy on held-out images if that was measured."""
        remaining, dying_ratio = self.ratios()
        epoch = Epoch(
            cycle=self.number,
            epoch=loop.epoch,
            step=loop.step,
            lr=lr,
            loss=trained.loss,
            train_accuracy=trained.accuracy,
            remaining=remaining,
            dying=dying_ratio,
            validation=validation,
        )
        self.folder.log(epoch)
        if loop.took:
            self.folder.log_time(EpochTime(cycle=self.number, epoch=loop.epoch, step=loop.step, **asdict(loop.took)))
        return epoch

    def cycle(self, trained: EpochResult | None, chosen: Chosen = NOT_VALIDATED) -> CycleResult:
        """After the cycle, which ends with the network of `chosen`; `trained` is of its last epoch, if it had one."""
        edges = sum(parameter.numel() for parameter in self.model.parameters() if parameter.ndim > 1)
        result = CycleResult(
            cycle=self.number,
            rate=1.0,
            remaining=1.0,
            kept=edges,
            edges=edges,
            loss=trained.loss if trained else None,
            train_accuracy=trained.accuracy if trained else None,
            dying=0.0,
            explored=0.0,
            apparent=0.0,
            apparent_of_all=0.0,
            dying_cumulative=0.0,
            dead_units={},
            validation=chosen.accuracy,
            picked=chosen.epoch,
        )
        self.folder.log(result)
        return result

    def ratios(self) -> tuple[float, float]:
        """Fraction of the edges kept, and the dying ratio."""
        return 1.0, 0.0


class Seen:
    """The edges that were selected: in the cycle in progress, by the edges themselves, and in any cycle before it."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = {name: edges for name, edges in all_edges(model).items() if isinstance(edges, SearchedEdges)}
        self.cumulative = Cumulative()

    def state_dict(self) -> dict[str, Any]:
        """Packed bits by layer."""
        ever = {name: edges.ever for name, edges in self.layers.items() if edges.ever is not None}
        return {"ever": ever, "cumulative": dict(self.cumulative.ever)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have seen what `state` says, on the edges' device."""
        for name, edges in self.layers.items():
            edges.ever = state["ever"][name].to(edges.scores.device) if name in state["ever"] else None
        held = {name: bits.to(self.layers[name].scores.device) for name, bits in state["cumulative"].items()}
        self.cumulative = Cumulative(held)


class SearchRecorder(Recorder):
    """Records a cycle of a search: ratios and ranks an epoch; layers, masks and dead units at its end.

    Args:
        seed: of the run, which draws the edges whose ranks are recorded.
        seen: what the cycles before selected.
        rate: fraction of the edges kept in layers that are not pinned; None where the rule alone decides.
    """

    def __init__(
        self, model: nn.Module, folder: RunFolder, number: int, *, seed: int, seen: Seen, rate: float | None
    ) -> None:
        super().__init__(model, folder, number)
        self.layers = searched_edges(model)
        self.seen = seen
        self.rate = rate
        self.traces = None if folder.silent else Traces(model, seed)

    def begin(self) -> None:
        track(self.model)
        if self.number == 1 and self.traces:
            self.folder.log_ranks(SampledEdges(**self.traces.edges()))
            with selected_once(self.model):
                self._log_ranks(self.traces, 0)

    def epoch(self, loop: Loop, lr: float, trained: EpochResult, validation: float | None = None) -> Epoch:
        with selected_once(self.model):
            epoch = super().epoch(loop, lr, trained, validation)
            if self.traces:
                self._log_ranks(self.traces, loop.epoch)
            return epoch

    def cycle(self, trained: EpochResult | None, chosen: Chosen = NOT_VALIDATED) -> CycleResult:
        with selected_once(self.model):
            return self._cycle(trained, chosen)

    def _cycle(self, trained: EpochResult | None, chosen: Chosen) -> CycleResult:
        if trained is None:  # the mask that a forward would have had
            for edges in self.layers.values():
                if edges.ever is not None:
                    edges.ever |= edges.mask()
        measured = dying(self.model)
        remaining = measured.kept / measured.edges
        result = CycleResult(
            cycle=self.number,
            rate=remaining if self.rate is None or all(e.pinned for e in self.layers.values()) else self.rate,
            remaining=remaining,
            kept=measured.kept,
            edges=measured.edges,
            loss=trained.loss if trained else None,
            train_accuracy=trained.accuracy if trained else None,
            dying=measured.ratio,
            explored=measured.explored,
            apparent=measured.apparent,
            apparent_of_all=measured.apparent_of_all,
            dying_cumulative=self.seen.cumulative.add(self.model).ratio,
            dead_units=dead_units(self.model),
            validation=chosen.accuracy,
            picked=chosen.epoch,
        )
        if not self.folder.silent:
            self.folder.log(replace(result, layers=self._layer_records()))
            masks = {name: edges.mask().cpu() for name, edges in self.layers.items()}
            shapes = json.dumps({name: list(edges.shape) for name, edges in self.layers.items()})
            # One entry of metadata: safetensors writes several in an order that differs from file to file.
            written = to_safetensors(masks, metadata={"shapes": shapes})
            self.folder.write(f"masks/cycle-{self.number}.safetensors", written)
        return result

    def ratios(self) -> tuple[float, float]:
        measured = dying(self.model)
        return measured.kept / measured.edges, measured.ratio

    def _log_ranks(self, traces: Traces, epoch: int) -> None:
        self.folder.log_ranks(EdgeRanks(cycle=self.number, epoch=epoch, **traces.ranks(self.model)))

    def _layer_records(self) -> dict[str, LayerRecord]:
        ever = ever_selected(self.model)
        return {
            name: LayerRecord(
                edges=edges.count,
                kept=edges.selected,
                ever=int(popcount(ever[name]).sum()),
                scores=Histogram(**histogram(edges)),
            )
            for name, edges in self.layers.items()
        }
