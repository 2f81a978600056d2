"""A real worker with too little memory for a job: the job says why it waits, and is tried once it has waited long."""

from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from core.database import seconds_from_now, transaction
from core.service.jobs.tables import JobRow
from tests.worker.conftest import Queue, StartPart, eventually

SMALL = {
    "SECATEUR_WORKER_MEMORY_BYTES": str(64 * 2**20),
    "SECATEUR_WORKER_FRESH_SECONDS": "3",
    "SECATEUR_ADMISSION_MAX_WAIT_SECONDS": "3600",
}


def test_a_worker_leaves_what_it_has_no_room_for_until_that_has_waited_too_long(
    api: TestClient,
    jobs: Queue,
    job_body: dict[str, Any],
    start_part: StartPart,
    sessions: sessionmaker[Session],
) -> None:
    job_id = api.post("/v1/jobs", json=job_body).json()["id"]
    assert "no worker serves" in api.get(f"/v1/jobs/{job_id}").json()["waiting_reason"]
    start_part("worker", stand_in={}, **SMALL)
    [first] = eventually(lambda: api.get("/v1/workers").json()["data"])
    assert first["memory_bytes"] == 64 * 2**20
    eventually(lambda: api.get("/v1/workers").json()["data"][0]["heartbeat_at"] > first["heartbeat_at"])
    waiting = api.get(f"/v1/jobs/{job_id}").json()
    assert (waiting["status"], waiting["attempt"]) == ("queued", 0)
    assert "of memory, cpu has 67.1 MB, the largest worker" in waiting["waiting_reason"]

    start_part("dispatcher", SECATEUR_HINT_STALE_SECONDS="1")
    with transaction(sessions) as session:
        session.execute(update(JobRow).values(available_at=seconds_from_now(-3601)))
    assert jobs.succeeded(job_id).attempt == 1
    assert any("the worker with the most memory tries it" in line for line in jobs.logs(job_id))
