"""PostgreSQL goes away and comes back while a job runs."""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from core.database import migrate
from core.settings import Settings
from tests.worker.conftest import Queue, StartWorker, eventually, is_alive
from worker.embedded import postgres, start_postgres, stop_postgres


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with TemporaryDirectory(prefix="secateur-test-") as folder:
        yield Path(folder, "postgres")


@pytest.fixture
def database_url(data_dir: Path) -> Iterator[str]:
    """A server of this test's own, to be stopped at will."""
    with postgres(data_dir) as url:
        migrate(Settings(database_url=url))
        yield url


def test_a_job_outlives_a_restart_of_the_database(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker, data_dir: Path
) -> None:
    job_id = jobs.submit(job_body)
    worker = start_worker(hang_in="prune", seconds=3)
    jobs.runner_pids(job_id)
    assert stop_postgres(data_dir)
    time.sleep(1)
    assert not worker.end.done()
    start_postgres(data_dir)
    assert worker.result() == "succeeded"
    job = jobs.job(job_id)
    assert job.status == "succeeded" and job.attempt == 1
    sequences = [event.sequence for event in jobs.events(job_id)]
    assert sequences == list(range(1, len(sequences) + 1))


def test_a_job_whose_end_falls_into_the_outage_is_ended_after_it(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker, data_dir: Path
) -> None:
    job_id = jobs.submit(job_body)
    worker = start_worker(hang_in="verify", seconds=1)
    jobs.runner_pids(job_id)
    stop_postgres(data_dir)
    time.sleep(3)
    start_postgres(data_dir)
    assert worker.result() == "succeeded"
    assert jobs.job(job_id).status == "succeeded"


def test_a_database_away_for_longer_than_the_lease_ends_the_runner(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker, settings: Settings, data_dir: Path
) -> None:
    job_id = jobs.submit(job_body)
    worker = start_worker(settings.model_copy(update={"lease_seconds": 2.0}), hang_in="prune")
    pids = jobs.runner_pids(job_id)
    stop_postgres(data_dir)
    assert worker.result() == "lost"
    eventually(lambda: not any(map(is_alive, pids)), seconds=5)
    start_postgres(data_dir)
    assert jobs.job(job_id).status == "running", "the dispatcher has not looked yet"
