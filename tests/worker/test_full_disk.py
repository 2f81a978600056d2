"""A full disk at each stage: said clearly, nothing half done is listed, and all is well once there is space again."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.pipeline.messages import Spec
from core.service.jobs import queue, service
from core.service.publications.retry import retry
from core.service.registry.schemas import DatasetBody, ModelBody
from core.service.registry.service import read_dataset, read_model, register_dataset, register_model
from core.settings import Settings
from core.storage import artifact_prefix, open_store
from tests.forked_processes import warm_python
from tests.model_folders import write_llama, write_text
from tests.small_disks import small_disk
from tests.sources.conftest import write_wordy_model
from tests.worker.conftest import Queue
from tests.worker.filling_runner import fill
from worker.processes import ChildProcess
from worker.runner.client import RUNNER
from worker.runner.client import _start as start_runner
from worker.supervisor.supervisor import Supervisor

DISK_BYTES = 6 * 2**20
STAND_IN = (sys.executable, "-m", "tests.worker.stand_in_runner", "{}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one of its own."""
    with small_disk(tmp_path / "disk", DISK_BYTES) as folder:
        yield folder


@pytest.fixture
def settings(settings: Settings, disk: Path) -> Settings:
    """Everything a worker writes is on the small disk; what is registered is not."""
    return settings.model_copy(
        update={
            "home": disk / "home",
            "threads": 1,
            "device": "cpu",
            "disk_watermark_bytes": 0,
        }
    )


@pytest.fixture
def body(sessions: sessionmaker[Session], settings: Settings, team: str, tmp_path: Path) -> dict[str, Any]:
    """A job whose model and text lie on another disk."""
    elsewhere = settings.model_copy(update={"allowed_roots": [tmp_path]})
    model, text = write_wordy_model(tmp_path / "model"), write_text(tmp_path / "numbers.txt")
    with transaction(sessions) as session:
        register_model(session, team, read_model(ModelBody(name="wordy", path=str(model.resolve())), elsewhere))
        register_dataset(session, team, read_dataset(DatasetBody(name="numbers", path=str(text.resolve())), elsewhere))
    return {
        "model": "wordy",
        "method": "wanda",
        "sparsity": 0.5,
        "calibration": {"dataset": "numbers", "samples": 4, "sequence_length": 32},
    }


Work = Callable[..., str]


@pytest.fixture
def work(settings: Settings, sessions: sessionmaker[Session]) -> Work:
    """Claim once and run what was claimed."""

    def run(*command: str) -> str:
        runner = command or RUNNER
        with transaction(sessions) as session:
            claim = queue.claim(session, queue="default", worker_id="a thread", lease_seconds=60)
        assert claim is not None
        stop = threading.Event()
        return str(Supervisor(settings, sessions, open_store(settings), stop=stop, runner=runner).run(claim))

    return run


@contextmanager
def filled_before(task: str, disk: Path) -> Iterator[None]:
    """Have the disk filled whenever a runner is about to start with this task."""

    def start(spec: Spec, *arguments: Any) -> ChildProcess:
        if spec.task == task:
            fill(disk)
        return start_runner(spec, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.runner.client._start", start)
        yield


def require_clear_end(jobs: Queue, settings: Settings, job_id: str) -> None:
    """The attempt says the disk is full, and has left nothing that could be taken for an artifact."""
    error = [event.data["error"] for event in jobs.events(job_id) if event.data.get("error")][-1]
    assert error["code"] == "disk_full" and error["retryable"], error
    assert "space" in error["message"], error
    assert jobs.artifact_names(job_id) == set()
    left = [path for path in settings.store_root.rglob("*") if path.is_file()]
    assert left == [], left


def require_whole_artifact(jobs: Queue, settings: Settings, job_id: str, team: str) -> None:
    with transaction(jobs.sessions) as session:
        files = service.list_artifacts(session, team, job_id).data
    assert {"config.json", "model.safetensors", "secateur.json"} <= {file.path for file in files}
    folder = open_store(settings).folder(artifact_prefix(job_id, jobs.job(job_id).attempt))
    assert folder is not None
    for file in files:
        assert hashlib.sha256((folder / file.path).read_bytes()).hexdigest() == file.sha256


def test_after_the_disk_filled_between_blocks_a_failed_job_that_is_retried_goes_on(
    jobs: Queue, body: dict[str, Any], work: Work, settings: Settings, disk: Path, team: str
) -> None:
    """What was saved outlasts an attempt that could not begin, and the job's failure."""
    jobs.settings = settings.model_copy(update={"max_attempts": 2})
    job_id = jobs.submit(body)
    assert work(*warm_python(), "-m", "tests.worker.filling_runner", str(disk)) == "queued"
    require_clear_end(jobs, settings, job_id)
    (disk / "of-somebody-else").unlink()
    with filled_before("prune", disk):
        assert work() == "failed"
    require_clear_end(jobs, settings, job_id)
    (disk / "of-somebody-else").unlink()
    with transaction(jobs.sessions) as session:
        retry(session, team, job_id, max_attempts=1)
    assert work() == "succeeded", jobs.job(job_id).error
    assert any("continuing after block" in line for line in jobs.logs(job_id))
    require_whole_artifact(jobs, settings, job_id, team)
    assert not (settings.work_root / job_id).exists()


def test_the_disk_fills_while_the_artifact_is_stored(
    jobs: Queue, body: dict[str, Any], work: Work, settings: Settings, disk: Path, team: str, tmp_path: Path,
    sessions: sessionmaker[Session],
) -> None:  # fmt: skip
    """There is room for one copy of the artifact, and not for the second, in the store."""
    model = write_llama(tmp_path / "large", hidden=64, intermediate=3000)
    elsewhere = settings.model_copy(update={"allowed_roots": [tmp_path]})
    with transaction(sessions) as session:
        register_model(session, team, read_model(ModelBody(name="large", path=str(model.resolve())), elsewhere))
    size = (model / "model.safetensors").stat().st_size
    assert DISK_BYTES / 2 < size < DISK_BYTES
    job_id = jobs.submit(body | {"model": "large"})
    assert work(*STAND_IN) == "queued"
    require_clear_end(jobs, settings, job_id)
    assert jobs.job(job_id).status == "queued"
    subprocess.run(["mount", "-o", f"remount,size={3 * DISK_BYTES}", str(disk)], check=True)
    assert work(*STAND_IN) == "succeeded", jobs.job(job_id).error
    require_whole_artifact(jobs, settings, job_id, team)
