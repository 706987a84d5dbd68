"""Runs go to MLflow as well, if its address is set."""

from pathlib import Path

import pytest

from export import mlflow as sending
from export.runs import Run, Runs

pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    runs = Runs(tmp_path)
    number = runs.begin(
        name="gear", version="1.0.0", command="fit", code="c0de", dataset_digest="aa", settings={"seed": 3}
    )
    runs.end(number, "done", results={"auroc": 0.9, "judged": {"accuracy": {"value": 0.8}}}, resources={"seconds": 2.0})
    return runs.get(number)


def test_nothing_is_sent_without_an_address(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.delenv(sending.VARIABLE, raising=False)
    assert sending.send(run, []) == ""


@pytest.mark.filterwarnings("ignore")
def test_run_arrives_at_a_tracking_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run) -> None:
    import mlflow

    address = f"sqlite:///{tmp_path / 'mlflow.db'}" if _sqlite() else (tmp_path / "store").as_uri()
    monkeypatch.setenv(sending.VARIABLE, address)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(address)
    report = tmp_path / "report.html"
    report.write_text("<p>report</p>")
    assert sending.send(run, [report]) == ""
    client = mlflow.MlflowClient(address)
    experiment = client.get_experiment_by_name("gear")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.metrics["results.judged.accuracy.value"] == 0.8
    assert found.data.params["seed"] == "3"
    assert found.data.tags["lineside_run"] == run.id


@pytest.mark.filterwarnings("ignore")
def test_server_that_does_not_answer_is_said_and_spoils_nothing(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    import mlflow

    monkeypatch.setenv(sending.VARIABLE, "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    assert "not sent" in sending.send(run, [])


def _sqlite() -> bool:
    """Whether MLflow can keep runs in a database here; the small client keeps them in files."""
    from importlib.util import find_spec

    return find_spec("sqlalchemy") is not None and find_spec("alembic") is not None
