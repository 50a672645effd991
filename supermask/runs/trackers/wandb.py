"""A run of Weights & Biases' for a run."""

from collections.abc import Mapping
from typing import Any, Literal
from uuid import uuid4

from supermask.runs.hook import Begun
from supermask.runs.options import RunResult
from supermask.runs.trackers.telling import Tracker, imported, remember, remembered, settings_of, tickets_of


class WandB(Tracker):
    """Settings, a row of history for each line of metrics.jsonl with its training step as `step`, tickets as artifacts.

    Args:
        project, entity: where the run is.
        name: of W&B's run; by default the run folder's.
        mode: by default what WANDB_MODE says. What is written `offline` lies in the run folder's `wandb`, in a folder
            for each time that the run was begun, all of one id. Each has the rows from the run's first on, as the last
            of a run that was killed may not be on disk; a row's number is its `_step`.

    Raises:
        RecipeError: W&B is not installed.
    """

    def __init__(
        self,
        *,
        project: str = "supermask",
        entity: str | None = None,
        name: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
    ) -> None:
        super().__init__()
        self.project, self.entity, self.name, self.mode = project, entity, name, mode
        self._wandb = imported("wandb", "pip install wandb")
        self._run: Any = None

    def begin(self, run: Begun) -> None:
        file = run.folder / "wandb.json"
        number = (remembered(file) or {}).get("id") or uuid4().hex[:8]
        remember(file, id=number)
        self._run = self._wandb.init(
            project=self.project,
            entity=self.entity,
            name=self.name or run.folder.name,
            id=number,
            resume="allow",
            mode=self.mode,
            dir=str(run.folder),
            config=settings_of(run),
            reinit="create_new",
        )
        self._run.define_metric("*", step_metric="step")
        # W&B keeps rows in memory for a while: told are those that its server says it has, and of files none.
        self.go_on(run, told=max(self._run.starting_step - 1, 0))

    def tell(self, found: Mapping[str, float], *, step: int, number: int) -> None:
        # A row an event: rows of one step would be merged, and lost where one had been written.
        self._run.log({**found, "step": step}, step=number)

    def end(self, result: RunResult) -> None:
        super().end(result)
        for ticket in tickets_of(result):
            artifact = self._wandb.Artifact(f"ticket-{self._run.id}", type="ticket")
            artifact.add_file(str(ticket))
            self._run.log_artifact(artifact)
        self._run.finish()
        self._run = None

    def close(self) -> None:
        if self._run is not None:
            self._run.finish(exit_code=1)
            self._run = None
