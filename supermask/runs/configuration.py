"""What an experiment is: data, network, optimiser and a list of stages. It says; a `Run` does."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from supermask.data.base import Data, Loaded
from supermask.later import LATER, settings
from supermask.methods.cycles import Cycle, check_cycles
from supermask.methods.method import EDGE_POPUP, Method
from supermask.networks.architecture import Architecture
from supermask.runs.hook import Hook, changes, checked, has_state, overrides
from supermask.runs.identity import RESULTS
from supermask.runs.options import Conversion, RecipeError, RunOptions
from supermask.runs.parts import code_of, code_of_builder, code_of_network
from supermask.runs.plain import held_by, is_record, plain
from supermask.runs.sources import qualified
from supermask.runs.stages import Export, Search, Stage, Train, search
from supermask.runs.validation import NEVER, Validation
from supermask.training.captured import CaptureError, check_capture
from supermask.training.schedules import StepRates, rate_at
from supermask.training.training import Training


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One experiment.

    Attributes:
        name: of the recipe, and of its run folders.
        data: the data set.
        network: the architecture for a number of classes.
        training: optimiser and schedule of a cycle.
        method: makes the edges and has its say in the loop; edge-popup's way unless given.
        stages: what is done, in order; unless given, the cycles of `method`, each evaluated, and a ticket.
        conversion: how the network is made searchable.
        run: where and how.
        validation: evaluation on held-out images while it trains, and what is picked by them; none unless given.
        hooks: what is called beside the method, in order.
    """

    name: str
    data: Data
    network: Callable[[int], Architecture]
    training: Training
    stages: tuple[Stage, ...] | None = None
    method: Method = EDGE_POPUP
    conversion: Conversion = Conversion()
    run: RunOptions = RunOptions()
    validation: Validation = field(default=NEVER, metadata=LATER)
    hooks: tuple[Hook, ...] = field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hooks", checked(self.hooks))  # a list will do
        if not isinstance(self.method, Method):
            raise ValueError(f"method={self.method!r}: expected one that is made, such as supermask.EP(remaining=0.1)")
        if not callable(self.network):
            raise ValueError(
                f"network={self.network!r}: expected what makes an Architecture for a number of classes, such as "
                f"supermask.Network(name={self.network!r})"
            )
        if getattr(self.data, "hold_out", None) == 0:
            self.check_held_out(self.data, None)
        for number, stage in enumerate(self.course, start=1):
            if not callable(getattr(stage, "run", None)):
                raise ValueError(
                    f"stage {number} is {stage!r}: expected a stage such as Search, Evaluate or Export; "
                    "supermask.search(cycles) gives several, to be unpacked with *"
                )
        if not any(isinstance(stage, Train) for stage in self.course):
            check_cycles(self.cycles)
        elif wrong := [stage for stage in self.course if isinstance(stage, Search | Export)]:
            raise ValueError(
                f"stages have Train and {type(wrong[0]).__name__}: Train trains the weights of a dense network, which "
                "has no scores and no ticket; make two recipes"
            )
        # A method that is its phases does nothing besides, so other cycles with it are a search as they stand.
        if self.cycles and self.method.settings() and (phases := list(self.method.phases())) != self.cycles:
            raise ValueError(
                f"stages search {self.cycles}, and the cycles of {self.method} are {phases}: leave stages out, or give "
                "(*search(method.phases()), Export()) of that method"
            )
        for number, cycle in enumerate(self.cycles):
            self._check_schedule(cycle, self.training.lr if number else None)

    def _check_schedule(self, cycle: Cycle, last: float | None) -> None:
        rates, epochs = self.method.schedule(self.training, cycle, last), cycle.epochs(self.training.epochs)
        given = f"{type(self.method).__name__}.schedule gave"
        cycle.rate(0, epochs)  # which refuses an annealing longer than the cycle
        if len(rates) != epochs:
            raise ValueError(f"{given} {len(rates)} learning rates for the {epochs} epochs of {cycle}")
        for rate in rates:
            first = rate_at(rate, 0, 1) if isinstance(rate, StepRates) else rate
            if not (math.isfinite(first) and first >= 0):
                raise ValueError(f"{given} the learning rate {first} in {cycle}: expected a number from 0 up")

    @property
    def course(self) -> tuple[Stage, ...]:
        """The stages: those given, or the cycles of the method, each evaluated, and a ticket."""
        return (*search(self.method.phases()), Export()) if self.stages is None else self.stages

    @property
    def cycles(self) -> list[Cycle]:
        """Of the search; none where the network is trained densely."""
        return [stage.cycle for stage in self.course if isinstance(stage, Search)]

    @property
    def trained(self) -> list[tuple[Cycle | None, Data, int]]:
        """Of each stage that trains the cycle (None for dense training), the data, and the epochs."""
        found: list[tuple[Cycle | None, Data, int]] = []
        for stage in self.course:
            if isinstance(stage, Search | Train):
                cycle = stage.cycle if isinstance(stage, Search) else None
                found.append((cycle, self.data_of(cycle), stage.epochs(self.training)))
        return found

    def data_of(self, cycle: Cycle | None) -> Data:
        """What a stage of `cycle` trains and is evaluated on."""
        return self.data if cycle is None else self.method.data(self.data, cycle)

    @property
    def epochs(self) -> int:
        """Of all stages."""
        return sum(stage.epochs(self.training) for stage in self.course)

    @property
    def cycle_of_stage(self) -> dict[int, Cycle]:
        """The cycles by the number of their stage, from 0."""
        return {number: stage.cycle for number, stage in enumerate(self.course) if isinstance(stage, Search)}

    def architecture(self, classes: int) -> Architecture:
        """The network for that many classes.

        Raises:
            RecipeError: `network` gave something else.
        """
        architecture = self.network(classes)
        if not isinstance(architecture, Architecture):
            raise RecipeError(f"network gave {type(architecture).__name__}: expected a supermask.Architecture")
        return architecture

    def check_held_out(self, data: Data, loaded: Loaded | None) -> None:
        """Raise RecipeError if there is to be validation and `data`, open or not to be opened, hold no images out."""
        if self.validation.every and (loaded is None or loaded.held_out is None):
            raise RecipeError(
                f"validation.every={self.validation.every}: {type(data).__name__} holds no training images out: give "
                "data.hold_out (data of one's own: hold_out= of supermask.in_memory), or leave validation out"
            )

    def check_on(self, device: torch.device, ranks: int = 1) -> None:
        """Raise CaptureError if its steps are to be captured and cannot be in that many processes on `device`."""
        if not self.training.capture:
            return
        check_capture(device, ranks, self.method)
        if inside := [type(hook).__name__ for hook in self.hooks if overrides(hook, "after_backward")]:
            raise CaptureError(
                f"capture=True with {inside[0]}.after_backward, which a replay would not call: train with "
                "capture=False, or do it in before_step or after_step"
            )

    def to_json(self, architecture: Architecture, device: torch.device, processes: int) -> dict[str, Any]:
        """What a run of it is, of JSON's own types: all that its result is a function of, and how it was run."""
        said = self.said()
        made = {"name": said["name"], "data": said["data"], "network": plain(architecture.to_json())}
        config = made | said | {"device": device.type, "processes": processes}
        code = self.code() | code_of(architecture, "architecture", Architecture, unsaid=True)
        if code := code | code_of_builder(architecture.name):
            config["code"] = code
        return config

    def said(self) -> dict[str, Any]:
        """The settings, without the network, which depends on the data, and the code that is not supermask's."""
        stages = [{"stage": type(stage).__name__, **held_by(stage)} for stage in self.course]
        for number, cycle in self.cycle_of_stage.items():
            if type(cycle) is not Cycle:
                stages[number]["cycle"]["type"] = qualified(type(cycle))
        config = {name: value for name, value in settings(self).items() if name not in ("network", "method", "hooks")}
        config |= {
            "results": RESULTS,
            "stages": stages,
            "data": {"type": type(self.data).__name__, **held_by(self.data)},
        }
        config["conversion"] = self.conversion.chosen(self.method)
        if said := self.method.settings():  # else the stages say all of it
            config["method"] = said | {"type": qualified(type(self.method))}
        if self.changing:
            config["hooks"] = [{"type": qualified(type(hook)), **_settings_of(hook)} for hook in self.changing]
        made: dict[str, Any] = plain(config)
        return made

    def code(self) -> dict[str, dict[str, Any]]:
        """Of each part, by its dotted name, what the settings do not say: the type of one that is not supermask's own,
        the digest of the files that define it, and what these do not say."""
        parts = {
            one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("run", "stages", "hooks")
        }
        parts |= {f"hooks.{number}": hook for number, hook in enumerate(self.changing)}
        parts |= {f"stages.{number}": stage for number, stage in enumerate(self.course)}
        usual = {"training": Training, "conversion": Conversion}
        unsaid = {"network"} if self.method.settings() else {"network", "method"}
        found = code_of(type(self), "recipe")
        for name, part in parts.items():
            found |= code_of(part, name, usual.get(name), unsaid=name in unsaid)
        found |= code_of_network(self.network)
        had = tuple(f"{name}." for name in self.how if name.startswith("data."))
        return {name: found[name] for name in sorted(found) if not f"{name}.".startswith(had)}

    @property
    def changing(self) -> list[Hook]:
        """The hooks that training may be another with; the others are how it is run."""
        return [hook for hook in self.hooks if changes(hook)]

    @property
    def how(self) -> list[str]:
        """Settings in which two runs of one experiment may differ: how it is run, and how its data is had."""
        options = [f"run.{option.name}" for option in fields(self.run) if option.name != "seed"]
        had = fields(self.data) if is_record(self.data) else ()  # type: ignore[arg-type]
        return options + [f"data.{option.name}" for option in had if not option.repr]


def _settings_of(hook: Hook) -> dict[str, Any]:
    """What a hook was made with, without what it keeps between its calls.

    Raises:
        RecipeError: it cannot say so before the run begins.
    """
    try:
        state = hook.state_dict() if has_state(hook) else {}  # type: ignore[attr-defined]
    except Exception as error:
        raise RecipeError(
            f"hook {type(hook).__name__}.state_dict failed before the run begins: {type(error).__name__}: {error}; it "
            "says which attributes are state and which settings: set what it reads in __init__"
        ) from error
    return {name: value for name, value in held_by(hook).items() if name not in state}
