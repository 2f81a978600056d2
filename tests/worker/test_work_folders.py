"""Work folders of jobs that ended, here or elsewhere, and a disk they fill; temporary folders of killed processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from core.database import transaction
from core.service.jobs import service
from core.settings import Settings
from tests.worker.conftest import Queue
from worker.supervisor.work_folders import WorkFigures, WorkFolders
from worker.temporary_folders import temporary_folder

MIB = 2**20

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


_HOLD = """
import sys, time
from pathlib import Path
from worker.temporary_folders import temporary_folder

with temporary_folder(Path(sys.argv[1]), "samples-") as folder:
    (folder / "weights").write_text("many")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_removed_and_what_is_used_is_not(tmp_path: Path) -> None:
    holders = [
        subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, used = (Path(holder.stdout.readline().strip()) for holder in holders if holder.stdout)
        holders[0].send_signal(signal.SIGKILL)
        holders[0].wait()
        assert (killed / "weights").exists()
        with temporary_folder(tmp_path, "samples-") as own:
            assert {used, own} == set(tmp_path.iterdir())
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
    with temporary_folder(tmp_path, "samples-") as own:
        assert [own] == list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
