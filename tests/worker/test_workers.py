"""What workers tell of themselves, a disk that is nearly full, and too little memory for a job."""

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient

from core.settings import Settings
from tests.conftest import bearer
from tests.worker.conftest import Held, Queue, StartPart, eventually

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
