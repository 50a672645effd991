"""MLflow's own client finds in a database what the run told."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from supermask import trackers
from supermask.runs.hook import HookError
from supermask.runs.trackers import mlflow
from tests.supermask.runs.small_runs import BASE, Killed, placed
from tests.trackers.told import KILLED, Stop, Told, expected, run


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow puts artifacts


def told(client: MlflowClient, run_id: str) -> Told:
    names = client.get_run(run_id).data.metrics
    return sorted((one.step, name, one.value) for name in names for one in client.get_metric_history(run_id, name))


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


def only(uri: str, experiment: str = "supermask") -> Any:
    """The one run that MLflow has."""
    client = MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return found


class Calls:
    """Counts calls of a method of MLflow's client.

    Attributes:
        instead: by number, from 1, what is called in its place, with the method itself first.
    """

    def __init__(self, patch: pytest.MonkeyPatch, name: str) -> None:
        self.instead: dict[int, Callable[..., Any]] = {}
        real, count = getattr(MlflowClient, name), itertools.count(1)

        def called(client: MlflowClient, *given: Any, **named: Any) -> Any:
            whole = partial(real, client)
            instead = self.instead.get(next(count))
            return instead(whole, *given, **named) if instead else whole(*given, **named)

        patch.setattr(MlflowClient, name, called)


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("killed", KILLED)
def test_each_number_once_in_one_run(killed: Sequence[int], uri: str, tmp_path: Path) -> None:
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


def test_a_run_that_was_stopped_is_not_left_running(uri: str, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        placed(replace(BASE, hooks=(trackers.MLflow(uri=uri), Stop(8))), tmp_path / "run").execute()
    assert only(uri).info.status == "KILLED"


def test_a_server_that_was_away_is_told_all(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, "log_batch")
    calls.instead[5] = lambda real, *given, **named: fail(ConnectionError("gone"))
    run(tmp_path / "run", lambda: trackers.MLflow(uri=uri))
    assert told(MlflowClient(tracking_uri=uri), only(uri).info.run_id) == expected(tmp_path / "run")
    assert only(uri).info.status == "FINISHED"


@pytest.mark.parametrize("part", [0, 1, 3, 99])
def test_killed_while_it_tells_a_run_tells_the_rest_once(
    part: int, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow takes metrics before the tag that says how many events it has."""

    def some(real: Any, run_id: str, metrics: Sequence[Any] = (), **_: Any) -> None:
        real(run_id, metrics=metrics[:part])
        raise Killed

    with monkeypatch.context() as patch:
        Calls(patch, "log_batch").instead[5] = some
        with pytest.raises(Killed):
            placed(replace(BASE, hooks=(trackers.MLflow(uri=uri),)), tmp_path / "run").execute()
    placed(replace(BASE, hooks=(trackers.MLflow(uri=uri),)), tmp_path / "run", resume=True).execute()
    assert told(MlflowClient(tracking_uri=uri), only(uri).info.run_id) == expected(tmp_path / "run")


@pytest.mark.parametrize("moment", ["before create_run", "after create_run", "before log_batch", "after log_batch"])
def test_killed_while_it_begins_a_run_has_one_of_mlflow_s_with_all_settings(
    moment: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    when, place = moment.split()

    def killed(real: Any, *given: Any, **named: Any) -> None:
        if when == "after":
            real(*given, **named)
        raise Killed

    monkeypatch.setattr(mlflow, "_AT_ONCE", 5)
    with monkeypatch.context() as patch:
        Calls(patch, place).instead[1] = killed
        with pytest.raises(Killed):
            placed(replace(BASE, hooks=(trackers.MLflow(uri=uri),)), tmp_path / "run").execute()
    placed(replace(BASE, hooks=(trackers.MLflow(uri=uri),)), tmp_path / "run", resume=True).execute()
    run(tmp_path / "whole", lambda: trackers.MLflow(uri=uri, experiment="whole"))
    assert only(uri).data.params == only(uri, "whole").data.params
    assert told(MlflowClient(tracking_uri=uri), only(uri).info.run_id) == expected(tmp_path / "run")


def test_two_runs_that_make_an_experiment_at_once_share_it(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(real: Any, name: str) -> None:
        assert real(name) is None
        MlflowClient(tracking_uri=uri).create_experiment(name)

    Calls(monkeypatch, "get_experiment_by_name").instead[1] = late
    run(tmp_path / "run", lambda: trackers.MLflow(uri=uri))
    assert only(uri).info.status == "FINISHED"


def test_an_experiment_that_was_deleted_is_refused(uri: str, tmp_path: Path) -> None:
    client = MlflowClient(tracking_uri=uri)
    number = client.create_experiment("tickets")
    client.delete_experiment(number)
    says = (
        rf"MLflow's experiment 'tickets' was deleted: restore it \(mlflow experiments restore --experiment-id {number}"
        r"\), or give MLflow\(experiment=...\) another name"
    )
    with pytest.raises(HookError, match=says):
        run(tmp_path / "run", lambda: trackers.MLflow(uri=uri, experiment="tickets"))
    client.restore_experiment(number)
    made = replace(BASE, hooks=(trackers.MLflow(uri=uri, experiment="tickets"),))
    placed(made, tmp_path / "run", resume=True).execute()
    assert only(uri, "tickets").info.status == "FINISHED"
