"""Sends a finished run to an MLflow tracking server as well, if its address is set.

Rules:
- `MLFLOW_TRACKING_URI` decides; without it nothing is imported and nothing is sent.
- A server that does not answer never spoils a run: it is said, and the run stands in `runs.sqlite` anyway.
"""

import os
from pathlib import Path
from typing import Any

from export.runs import Run

VARIABLE = "MLFLOW_TRACKING_URI"


def send(run: Run, files: list[Path]) -> str:
    """Send a run with its files; return what went wrong in plain words, or nothing."""
    if not os.environ.get(VARIABLE):
        return ""
    try:
        import mlflow
    except ImportError:
        return f"MLflow      not sent: {VARIABLE} is set, but mlflow is not installed (pip install 'lineside[mlflow]')"
    try:
        mlflow.set_experiment(run.name)
        with mlflow.start_run(run_name=f"{run.version} {run.id}"):
            mlflow.set_tags({"code": run.code, "dataset_digest": run.dataset_digest, "lineside_run": run.id})
            mlflow.log_params(run.settings)
            mlflow.log_metrics(numbers({"results": run.results, "resources": run.resources}))
            for file in files:
                mlflow.log_artifact(str(file))
    except Exception as error:  # noqa: BLE001 - whatever the client throws, the run itself is done and recorded
        return f"MLflow      not sent: {type(error).__name__}: {error}"
    return ""


def numbers(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return all numbers of nested values by their path, in the characters that MLflow takes."""
    found: dict[str, float] = {}
    for name, value in values.items():
        path = f"{prefix}{name}".replace(" ", "_")
        if isinstance(value, dict):
            found |= numbers(value, f"{path}.")
        elif isinstance(value, int | float):
            found[path] = float(value)
    return found
