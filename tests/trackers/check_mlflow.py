"""MLflow's own client finds in a database what the run told."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient

from supermask import trackers
from supermask.runs.hook import HookError
from tests.trackers.told import KILLED, Told, expected, run


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow puts artifacts


def told(client: MlflowClient, run_id: str) -> Told:
    names = client.get_run(run_id).data.metrics
    return sorted((one.step, name, one.value) for name in names for one in client.get_metric_history(run_id, name))


@pytest.mark.parametrize("killed", KILLED)
def test_each_number_once_in_one_run(killed: Sequence[int], tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    result = run(tmp_path / "run", lambda: trackers.MLflow(uri=uri, experiment="tickets"), killed)
    client = MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name("tickets").experiment_id])
    assert told(client, found.info.run_id) == expected(tmp_path / "run")
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["training.lr"] == "0.3"
    assert found.data.params["run.seed"] == "0"
    (artifact,) = client.list_artifacts(found.info.run_id)
    ticket = Path(client.download_artifacts(found.info.run_id, artifact.path))
    assert result.folder is not None
    assert ticket.read_bytes() == (result.folder / "ticket.safetensors").read_bytes()


def test_a_run_that_broke_down_is_not_left_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks(trackers.MLflow):
        def tell(self, *given: object, **named: object) -> None:
            raise ConnectionError("gone")

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(HookError, match=r"hook Breaks.log failed after 5 steps: ConnectionError: gone"):
        run(tmp_path / "run", lambda: Breaks(uri=uri))
    client = MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name("supermask").experiment_id])
    assert found.info.status == "KILLED"
