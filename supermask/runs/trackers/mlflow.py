"""A run of MLflow's for a run."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from supermask.runs.hook import Begun
from supermask.runs.options import RecipeError, RunResult
from supermask.runs.trackers.telling import Tracker, imported, remember, remembered, settings_of, tickets_of

_TOLD, _KEY = "supermask.events", "supermask.key"
_LONGEST = 6000  # of a parameter, which MLflow refuses beyond
_AT_ONCE = 100


class MLflow(Tracker):
    """Parameters, metrics over training steps, and tickets as artifacts.

    Args:
        uri: of the tracking server, folder or database; by default what MLFLOW_TRACKING_URI says.
        experiment: by name; made where there is none.
        name: of MLflow's run; by default the run folder's.

    Raises:
        RecipeError: MLflow is not installed.
    """

    def __init__(self, *, uri: str | None = None, experiment: str = "supermask", name: str | None = None) -> None:
        super().__init__()
        self.uri, self.experiment, self.name = uri, experiment, name
        self._mlflow = imported("mlflow", "pip install mlflow")
        self._client: Any = None
        self._file = Path()
        self._held: dict[str, Any] = {}

    def begin(self, run: Begun) -> None:
        self._client = self._mlflow.MlflowClient(tracking_uri=self.uri)
        self._file = run.folder / "mlflow.json"
        self._held = remembered(self._file) or {}
        if "run" not in self._held:
            # What MLflow's run is found by, should this process be killed before it remembers it.
            self._remember(key=self._held.get("key") or uuid4().hex)
            self._remember(run=self._found() or self._made(self.name or run.folder.name))
        number = self._held["run"]
        self._client.update_run(number, status="RUNNING")
        there = self._client.get_run(number).data
        self._tell_settings(run, there.params)
        self.go_on(run, told=int(there.tags.get(_TOLD, 0)))

    def _experiment(self) -> str:
        """Its number.

        Raises:
            RecipeError: it was deleted.
        """
        client = self._client
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(client.create_experiment(self.experiment))
            except self._mlflow.exceptions.MlflowException:
                found = client.get_experiment_by_name(self.experiment)  # of another run, which made it first
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise RecipeError(
                f"MLflow's experiment {self.experiment!r} was deleted: restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}), or give MLflow(experiment=...) another name"
            )
        return str(found.experiment_id)

    def _found(self) -> str | None:
        """The run that was made for this one."""
        known = self._client.search_runs([self._experiment()], f"tags.`{_KEY}` = '{self._held['key']}'")
        return known[0].info.run_id if known else None

    def _made(self, name: str) -> str:
        made = self._client.create_run(self._experiment(), run_name=name, tags={_KEY: self._held["key"]})
        return str(made.info.run_id)

    def _remember(self, **what: Any) -> None:
        held = self._held | what
        remember(self._file, **held)
        self._held = held

    def _tell_settings(self, run: Begun, told: Mapping[str, str]) -> None:
        """Those that were not `told`; MLflow refuses other values of one that was."""
        named = {re.sub(r"[^\w\-. /]", "_", name): str(value)[:_LONGEST] for name, value in settings_of(run).items()}
        given = [self._mlflow.entities.Param(name, value) for name, value in named.items() if name not in told]
        for first in range(0, len(given), _AT_ONCE):
            self._client.log_batch(self._held["run"], params=given[first : first + _AT_ONCE])

    def tell(self, found: Mapping[str, float], *, step: int, number: int) -> None:
        """The time of an event is remembered before it is told: by it is known what of it MLflow has already, where it
        failed or was killed on the way."""
        if self._held.get("telling") == number:
            found = {name: value for name, value in found.items() if not self._has(name, step)}
        else:
            self._remember(telling=number, at=time.time_ns() // 1_000_000)
        at, tags = self._held["at"], [self._mlflow.entities.RunTag(_TOLD, str(number))]
        metrics = [self._mlflow.entities.Metric(name, float(value), at, step) for name, value in found.items()]
        self._client.log_batch(self._held["run"], metrics=metrics, tags=tags, synchronous=True)

    def _has(self, name: str, step: int) -> bool:
        had = self._client.get_metric_history(self._held["run"], name)
        return any((one.timestamp, one.step) == (self._held["at"], step) for one in had)

    def end(self, result: RunResult) -> None:
        super().end(result)
        for ticket in tickets_of(result):
            self._client.log_artifact(self._held["run"], str(ticket))
        self._client.set_terminated(self._held["run"], "FINISHED")
        self._client = None

    def close(self) -> None:
        if self._client is not None:
            self._client.set_terminated(self._held["run"], "KILLED")
            self._client = None
