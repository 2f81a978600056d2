"""Work folders of jobs that ended, here or elsewhere, and a disk they fill."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs import service
from core.service.jobs.queue import expire_leases
from core.service.jobs.tables import WorkerRow
from core.settings import Settings
from tests.worker.conftest import Queue, SpawnWorker, StartPart, eventually, is_alive, worker_state
from worker.supervisor.work_folders import WorkFigures, WorkFolders

MIB = 2**20
IMPATIENT = {
    "SECATEUR_WORKER_FRESH_SECONDS": "1.5",
    "SECATEUR_LEASE_RENEW_SECONDS": "0.5",
    "SECATEUR_DISK_WATERMARK_BYTES": str(64 * MIB),
}

Fill = Callable[..., Path]


@pytest.fixture
def settings(settings: Settings, small_disk: Path) -> Settings:
    return settings.model_copy(update={"home": small_disk / "home"})


@pytest.fixture
def fill(settings: Settings) -> Fill:
    """Puts something into the folder of a job's attempt; the job's folder."""

    def put(job_id: str, size: int = MIB) -> Path:
        attempt = settings.work_root / job_id / "attempt-1"
        attempt.mkdir(parents=True, exist_ok=True)
        with open(attempt / "saved", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        return attempt.parent

    return put


def end(jobs: Queue, job_id: str, status: str, *, seconds_ago: float = 0) -> None:
    with transaction(jobs.sessions) as session:
        session.execute(
            text("UPDATE jobs SET status = :status, finished_at = now() - make_interval(secs => :ago) WHERE id = :id"),
            {"status": status, "ago": seconds_ago, "id": job_id},
        )


def test_a_worker_killed_with_9_whose_job_was_finished_elsewhere_sweeps_its_folder_and_claims_again(
    jobs: Queue,
    job_body: dict[str, Any],
    start_part: StartPart,
    spawn_worker: SpawnWorker,
    settings: Settings,
    fill: Fill,
    tmp_path: Path,
) -> None:
    job_id = jobs.submit(job_body)
    worker = start_part("worker", stand_in={"hang_in": "prune"}, **IMPATIENT)
    eventually(lambda: jobs.job(job_id).status == "running")
    pid, _ = jobs.runner_pids(job_id)
    folder = fill(job_id, 220 * MIB)
    eventually(lambda: held_by_work(jobs.sessions) == (1, 220))
    worker.send(signal.SIGKILL)
    eventually(lambda: not is_alive(pid))

    jobs.end_lease(job_id)
    with transaction(jobs.sessions) as session:
        expire_leases(session)
    assert jobs.job(job_id).status == "queued"
    elsewhere = settings.model_copy(update={"home": tmp_path / "elsewhere"})
    assert spawn_worker(elsewhere).wait(60) == 0
    assert jobs.job(job_id).status == "succeeded" and jobs.job(job_id).attempt == 2
    assert folder.exists()
    with transaction(jobs.sessions) as session:
        session.execute(text("DELETE FROM workers"))

    after = jobs.submit(job_body)
    start_part("worker", stand_in={}, **IMPATIENT)
    eventually(lambda: worker_state(jobs) is not None)
    assert jobs.succeeded(after).attempt == 1
    assert not folder.exists()
    eventually(lambda: worker_state(jobs) == "idle")
    eventually(lambda: held_by_work(jobs.sessions) == (0, 0))


def held_by_work(sessions: sessionmaker[Session]) -> tuple[int, int] | None:
    """Folders and whole MiB that the only worker tells of."""
    with transaction(sessions) as session:
        row = session.execute(select(WorkerRow.work_folders, WorkerRow.work_bytes)).one_or_none()
    return None if row is None else (row.work_folders, row.work_bytes // MIB)


def test_folders_go_with_the_use_of_them(jobs: Queue, job_body: dict[str, Any], settings: Settings, fill: Fill) -> None:
    work = WorkFolders(settings.work_root)
    done, held, waiting, failed, long_ago = (jobs.submit(job_body) for _ in range(5))
    folders = {job_id: fill(job_id) for job_id in (done, held, waiting, failed, long_ago, "job_unknown", "job_old")}
    for job_id in (done, held):
        end(jobs, job_id, "succeeded")
    end(jobs, failed, "failed", seconds_ago=10)
    end(jobs, long_ago, "cancelled", seconds_ago=70)
    for path in (folders["job_old"], folders["job_old"] / "attempt-1"):
        os.utime(path, (0, 0))
    with work.locked(held):
        work.sweep(jobs.sessions, resume_keep_seconds=60)
        assert {name for name, folder in folders.items() if folder.exists()} == {held, waiting, failed, "job_unknown"}
        assert work.figures().folders == 4 and 4 * MIB <= work.figures().bytes < 5 * MIB
    work.sweep(jobs.sessions, resume_keep_seconds=60)
    assert not folders[held].exists(), "nobody holds it any more"
    with transaction(jobs.sessions) as session:
        service.cancel(session, jobs.team, waiting)
    work.sweep(jobs.sessions, resume_keep_seconds=0)
    assert work.figures() == WorkFigures(0, 0)


def test_where_the_disk_is_short_jobs_give_up_what_they_would_go_on_from_the_least_loss_first(
    jobs: Queue, job_body: dict[str, Any], settings: Settings, small_disk: Path, fill: Fill
) -> None:
    """A disk of 256 MiB holds 60 of the first, 60 of the second, 60 of one that an attempt holds."""
    work = WorkFolders(settings.work_root)
    waiting, failed, running = (jobs.submit(job_body) for _ in range(3))
    folders = {job_id: fill(job_id, 60 * MIB) for job_id in (waiting, failed, running)}
    end(jobs, failed, "failed")

    def left(free: int) -> set[str]:
        work.sweep(jobs.sessions, resume_keep_seconds=3600, free_bytes=free * MIB)
        return {job_id for job_id, folder in folders.items() if folder.exists()}

    with work.locked(running):
        assert left(free=60) == {waiting, failed, running}, "there is enough"
        assert left(free=230) == {waiting, failed, running}, "it would not help"
        assert left(free=120) == {waiting, running}
        assert left(free=180) == {running}
