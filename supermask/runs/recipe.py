"""A recipe: an experiment that can be run."""

from dataclasses import dataclass

from supermask.runs.configuration import Configuration
from supermask.runs.options import RunResult
from supermask.runs.run import execute


@dataclass(frozen=True, kw_only=True)
class Recipe(Configuration):
    """One experiment: what it is, and `execute`."""

    def execute(self) -> RunResult:
        """Run all stages, or with `run.dry_run` print what they would be.

        Torch's global random state is as it was when this returns.

        Raises:
            DataMissing: the data set is not there.
            DataDamaged: one of its files cannot be read.
            RecipeError: the recipe cannot be begun as configured; nothing was written.
            RunFolderError: the run folder cannot be written, or holds another run than the one to resume.
            NonFiniteError: training broke down.
            Interrupted: SIGINT or SIGTERM came in; what was saved is in the message.
        """
        return execute(self)
