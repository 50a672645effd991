"""A recipe: an experiment that can be run."""

from dataclasses import dataclass

from supermask.runs.configuration import Configuration
from supermask.runs.duration import StepTimes
from supermask.runs.interrupts import Interrupted
from supermask.runs.options import RunResult
from supermask.runs.run import execute, plan_of


@dataclass(frozen=True, kw_only=True)
class Recipe(Configuration):
    """One experiment: what it is, and `execute`."""

    def execute(self) -> RunResult:
        """Run all stages, or with `run.dry_run` print what they would be and how long they would take.

        Torch's global random state and number of threads are as they were when this returns.

        Raises:
            DataMissing: the data set is not there.
            DataDamaged: one of its files cannot be read.
            RecipeError: the recipe cannot be begun as configured; nothing was written.
            RunFolderError: the run folder cannot be written, or holds another run than the one to resume.
            NonFiniteError: training broke down.
            Interrupted: SIGINT or SIGTERM came in; what was saved is in the message, which is on stderr. A script that
                does not catch it ends with 128 + the signal.
        """
        try:
            return execute(self)
        except Interrupted as stop:
            stop.say()
            raise

    def show_plan(self, times: StepTimes) -> float | None:
        """Print what all stages would be and how long they would take: the seconds, or None where no step is timed.

        Args:
            times: of the plans before; what it has need not be timed again.

        Raises:
            DataMissing, DataDamaged, RecipeError: as `execute`.
        """
        return plan_of(self, times)
