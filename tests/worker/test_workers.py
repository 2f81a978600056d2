"""What workers tell of themselves, and a disk that is nearly full. Work folders of jobs that ended, here or elsewhere,
and temporary folders of killed processes.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from core.database import transaction
from core.service.jobs import service
from core.settings import Settings
from tests.conftest import bearer
from tests.worker.conftest import Held, Queue, StartPart, eventually
from worker.supervisor.work_folders import WorkFigures, WorkFolders
from worker.temporary_folders import temporary_folder

MIB = 2**20
OFTEN = {"SECATEUR_WORKER_FRESH_SECONDS": "1.5"}
"""A sign of life twice a second."""


def listed(api: TestClient) -> list[dict[str, Any]]:
    workers: list[dict[str, Any]] = api.get("/v1/workers").json()["data"]
    return workers


def test_a_worker_tells_what_it_has_and_does_and_one_that_died_over_its_job_is_not_busy_with_it_for_ever(
    api: TestClient,
    jobs: Queue,
    job_body: dict[str, Any],
    start_part: StartPart,
    other_team_key: str,
    api_client: TestClient,
    tmp_path: Path,
) -> None:
    behaviour, held = tmp_path / "behaviour", Held("prune", tmp_path)
    behaviour.write_text(json.dumps(held.behaviour))
    process = start_part("worker", stand_in={"from": str(behaviour)}, SECATEUR_LEASE_RENEW_SECONDS="0.5", **OFTEN)
    [worker] = eventually(lambda: listed(api))
    assert worker["state"] == "idle" and worker["object"] == "worker" and worker["job_id"] is None
    assert worker["memory_bytes"] > 0 and worker["disk_free_bytes"] > 0 and worker["version"]
    assert "onnxruntime" in worker["runtimes"]
    assert eventually(lambda: listed(api)[0]["operations_per_second"]) > 1e8, "measured once it has begun"
    job_id = api.post("/v1/jobs", json=job_body).json()["id"]
    busy = eventually(lambda: in_state(api, "busy"))
    assert busy[0]["job_id"] == job_id
    [others] = api_client.get("/v1/workers", headers=bearer(other_team_key)).json()["data"]
    assert others["state"] == "busy" and others["job_id"] is None, "another team's job is told"
    held.let_go()
    jobs.succeeded(job_id)
    assert eventually(lambda: in_state(api, "idle"))[0]["job_id"] is None

    behaviour.write_text(json.dumps({"hang_in": "prune"}))
    lost = api.post("/v1/jobs", json=job_body).json()["id"]
    eventually(lambda: in_state(api, "busy"))
    psutil.Process(process.pid).children()[0].kill()  # the pool's
    assert api.post(f"/v1/jobs/{lost}/cancel").json()["status"] == "cancelling"
    jobs.end_lease(lost)
    start_part("dispatcher", SECATEUR_DISPATCH_INTERVAL_SECONDS="0.5")
    eventually(lambda: jobs.job(lost).status == "cancelled")
    eventually(lambda: in_state(api, "idle"))


def in_state(api: TestClient, state: str) -> list[dict[str, Any]]:
    return [each for each in listed(api) if each["state"] == state]


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    if "small_disk" not in request.fixturenames:
        return settings
    return settings.model_copy(update={"home": request.getfixturevalue("small_disk") / "home"})


def test_below_the_watermark_a_worker_claims_nothing_and_goes_on_when_there_is_space(
    small_disk: Path, api: TestClient, jobs: Queue, job_body: dict[str, Any], start_part: StartPart
) -> None:
    start_part("worker", stand_in={}, SECATEUR_DISK_WATERMARK_BYTES=str(64 * MIB), **OFTEN)
    eventually(lambda: listed(api))
    ballast = small_disk / "ballast"
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 220 * MIB)
    [paused] = eventually(lambda: in_state(api, "paused"))
    assert "67.1 MB" in paused["reason"] and "watermark" in paused["reason"]
    job_id = api.post("/v1/jobs", json=job_body).json()["id"]
    assert api.get("/readyz").status_code == 200
    eventually(lambda: [each for each in listed(api) if each["heartbeat_at"] > paused["heartbeat_at"]])
    row = jobs.row(job_id)
    assert (row.status, row.attempt) == ("queued", 0)
    ballast.unlink()
    assert jobs.succeeded(job_id).attempt == 1
    assert listed(api)[0]["reason"] is None


Fill = Callable[..., Path]


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
