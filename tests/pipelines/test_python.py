"""The pipelines in Python: asyncio, and the tasks of the Airflow DAG."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from secateur import errors
from tests.pipelines import calling_airflow
from tests.pipelines.service import EXAMPLES, Ended, Service

RunAsync = Callable[[], Ended]


@pytest.fixture
def run_async(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> RunAsync:
    """Runs the asyncio pipeline as a program, in this process."""
    service.use_here(monkeypatch, tmp_path)
    file = str(EXAMPLES / "async_pipeline.py")
    monkeypatch.setattr(sys, "argv", [file, "pruned"])

    def run() -> Ended:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(file, run_name="__main__")
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    return run


def test_of_several_jobs_at_once_the_sparsest_that_keeps_its_gates_is_downloaded(
    service: Service, run_async: RunAsync, tmp_path: Path
) -> None:
    service.behave(ratios={"0.3": 1.5, "0.5": 2.0, "0.7": 9.0})
    done = run_async()
    assert done.code == 0, done.err
    assert ", 50%: " in done.out and (tmp_path / "pruned" / "secateur.json").is_file()
    assert done.err.startswith("70%: ") and "the gate allows 2.4" in done.err
    service.behave(ratio=9.0)
    missed = run_async()
    assert missed.code == 3 and missed.err.count("the gate allows 2.4") == 3


def test_of_several_jobs_the_first_that_fails_ends_all(service: Service, run_async: RunAsync) -> None:
    service.behave(fail_in="prune", code="not_finite_weights", retryable=False)
    done = run_async()
    assert done.code == 1 and "as told" in done.err and "Traceback" not in done.err
    assert {job["status"] for job in service.newest_jobs(3)} <= {"failed", "cancelled", "cancelling"}


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


def test_a_missed_gate_fails_the_task_that_checks(
    service: Service, airflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling_airflow, "RUN_ID", "manual__2")
    service.behave(ratio=3.0)
    with pytest.raises(errors.GateMissed, match=r"the gate allows 2\.4"):
        runpy.run_path(str(EXAMPLES / "airflow_dag.py"))
    assert not airflow.exists()
