"""A run of MLflow's for a run."""

import re
import time
from collections.abc import Mapping
from typing import Any

from supermask.runs.hook import Begun
from supermask.runs.options import RunResult
from supermask.runs.trackers.telling import Tracker, imported, remember, remembered, settings_of, tickets_of

_TOLD = "supermask.events"
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
        self._run = ""

    def begin(self, run: Begun) -> None:
        self._client = client = self._mlflow.MlflowClient(tracking_uri=self.uri)
        held = remembered(run.folder / "mlflow.json")
        if held is None:
            experiment = client.get_experiment_by_name(self.experiment)
            number = client.create_experiment(self.experiment) if experiment is None else experiment.experiment_id
            self._run = client.create_run(number, run_name=self.name or run.folder.name).info.run_id
            remember(run.folder / "mlflow.json", run=self._run)
            self._tell_settings(run)
        else:
            self._run = held["run"]
            client.update_run(self._run, status="RUNNING")
        self.go_on(run, told=int(client.get_run(self._run).data.tags.get(_TOLD, 0)))

    def _tell_settings(self, run: Begun) -> None:
        given = [
            self._mlflow.entities.Param(re.sub(r"[^\w\-. /]", "_", name), str(value)[:_LONGEST])
            for name, value in settings_of(run).items()
        ]
        for first in range(0, len(given), _AT_ONCE):
            self._client.log_batch(self._run, params=given[first : first + _AT_ONCE])

    def tell(self, found: Mapping[str, float], *, step: int, number: int) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [self._mlflow.entities.Metric(name, float(value), now, step) for name, value in found.items()]
        tags = [self._mlflow.entities.RunTag(_TOLD, str(number))]
        self._client.log_batch(self._run, metrics=metrics, tags=tags)

    def end(self, result: RunResult) -> None:
        for ticket in tickets_of(result):
            self._client.log_artifact(self._run, str(ticket))
        self._client.set_terminated(self._run, "FINISHED")
        self._client = None

    def close(self) -> None:
        if self._client is not None:
            self._client.set_terminated(self._run, "KILLED")
            self._client = None
