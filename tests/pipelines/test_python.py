"""The pipelines in Python: the tasks of the Airflow DAG."""

import runpy
import sys
from pathlib import Path

import pytest

from tests.pipelines import calling_airflow
from tests.pipelines.service import EXAMPLES, Service


@pytest.fixture
def airflow(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of models of a machine of Airflow, whose decorators only call."""
    for name, module in calling_airflow.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    folder = tmp_path / "models"
    variables = {"URL": service.url, "API_KEY": service.key, "FOLDER": str(folder), "POLL": "0.1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SECATEUR_{name}", value)
    return folder


def test_the_tasks_of_the_dag_leave_a_model_and_again_are_the_same_job(service: Service, airflow: Path) -> None:
    runpy.run_path(str(EXAMPLES / "airflow_dag.py"))
    (job,) = service.newest_jobs(1)
    assert job["metadata"] == {"run": calling_airflow.RUN_ID}
    assert (airflow / job["id"] / "model.safetensors").is_file()
    runpy.run_path(str(EXAMPLES / "airflow_dag.py"))
    assert service.newest_jobs(1)[0]["id"] == job["id"]
