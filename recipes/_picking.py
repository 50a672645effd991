"""Grids that pick each row's learning rate by held-out images alone, and report the tests of what was picked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from supermask import Training, Validation
from supermask.recipes._grid import Compared, Experiment, Grid, experiments
from supermask.recipes._settings import Setting
from supermask.runs import RunRecord, mean_and_error


@dataclass(frozen=True, kw_only=True)
class PickingGrid(Grid):
    """Which runs, how many, and where they go.

    Attributes:
        lrs: learning rates to try for each row. The one of the highest accuracy on held-out images, mean over the row's
            rates and the seeds, is the row's; nothing of the others is shown.
        hold_out: training images that are held out for that: so many, of an image folder the fraction.
    """

    lrs: tuple[float, ...] = ()
    hold_out: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lrs and self.lr is not None:
            raise ValueError(f"lr={self.lr} and lrs={self.lrs}: one is given, or one of several is picked")
        if len(set(self.lrs)) < len(self.lrs):
            raise ValueError(f"lrs={self.lrs}: name each learning rate once")
        if bool(self.lrs) != bool(self.hold_out):
            raise ValueError(
                f"lrs={self.lrs} with hold_out={self.hold_out}: learning rates are picked by images that are held out; "
                "give both, or neither"
            )

    def setting(self, training: Training | None = None) -> Setting:
        setting = super().setting(training)
        if not self.hold_out:
            return setting
        whole = isinstance(setting.data.hold_out, int)  # type: ignore[attr-defined]
        if whole and self.hold_out != int(self.hold_out):
            raise ValueError(f"hold_out={self.hold_out}: of {self.data} a number of images is held out")
        held = int(self.hold_out) if whole else self.hold_out
        return replace(setting, data=replace(setting.data, hold_out=held))  # type: ignore[type-var]

    def experiments(self, rows: Sequence[Compared], setting: Setting | None = None) -> list[Experiment]:
        """The runs of each row, at each of the learning rates that are tried; `setting` in the place of its own."""
        setting = setting or self.setting()
        if not self.lrs:
            return experiments(setting, rows)
        made = experiments(setting, [at for row in rows for at in self.tried(row)])
        # After the last epoch of a cycle; one of several schedules' length (EP long) is looked at after each.
        once = Validation(every=setting.training.epochs)
        return [replace(one, validation=once) for one in made]

    def tried(self, row: Compared) -> list[Compared]:
        """`row` at each learning rate; at one where its method takes no step."""
        steps = row.method is None or any(cycle.length for cycle in row.method.phases())
        return [replace(row, lr=lr) for lr in (self.lrs if steps else self.lrs[:1])]

    def picked(
        self, rows: Sequence[Compared], found: Mapping[str, Sequence[RunRecord]]
    ) -> dict[str, tuple[str, Sequence[RunRecord]]]:
        """By the label of each row, what it is called with what was picked, and its runs."""
        if not self.lrs:
            return {row.label: (row.label, found[row.label]) for row in rows}
        chosen = {}
        for row in rows:
            tried = self.tried(row)
            chosen[row.label] = max(tried, key=lambda at: held_out(found[at.label])[0]) if tried[1:] else tried[0]
        return {label: (at.label, found[at.label]) for label, at in chosen.items()}


def held_out(runs: Sequence[RunRecord]) -> tuple[float, float]:
    """Mean and standard error over seeds of the accuracy on held-out images, mean over a seed's runs and cycles; where
    some cycles of a run take steps, over these.

    Raises:
        ValueError: a run was not evaluated on them.
    """
    seeds: dict[int, list[float]] = {}
    for run in runs:
        stepped = [cycle for cycle in run.cycles if cycle.loss is not None]
        for cycle in stepped or run.cycles:
            if cycle.validation is None:
                raise ValueError(f"{run.path} has nothing of held-out images; remove it and begin again")
            seeds.setdefault(run.seed, []).append(cycle.validation)
    return mean_and_error([fmean(values) for values in seeds.values()])
