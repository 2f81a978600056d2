"""What Prometheus scrapes: of the process, and of the fleet as the database knows it."""

import threading
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

import api.process.metrics
from api.app import create_app
from bench.parts import free_port
from core.database import transaction
from core.service.jobs import queue
from core.service.jobs.fleet import STAGE_BOUNDS, count_ended_attempts
from core.settings import Settings

Labels = dict[str, str]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.process.metrics, "CACHED_SECONDS", 0.0)


def values(exposition: str) -> dict[str, float]:
    return {
        sample.name + "{" + ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items())) + "}": sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


def scrape(client: TestClient | httpx.Client) -> dict[str, float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain")
    return values(answer.text)


def claim(sessions: sessionmaker[Session]) -> tuple[str, int]:
    with transaction(sessions) as session:
        claimed = queue.claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
    assert claimed is not None
    return claimed.job_id, claimed.attempt


def test_queues_running_jobs_and_workers(
    api: TestClient, sessions: sessionmaker[Session], job_body: dict[str, Any]
) -> None:
    for _ in range(3):
        assert api.post("/v1/jobs", json=job_body).status_code == 201
    with transaction(sessions) as session:
        session.execute(text("UPDATE jobs SET created_at = now() - interval '5 minutes'"))
        about: dict[str, Any] = {
            "device": "cuda", "hostname": "bed", "pid": 1, "device_memory_bytes": 80, "disk_free_bytes": 2**40,
            "work_folders": 3, "work_bytes": 4096, "device_utilisation": 0.5, "device_celsius": 61,
            "device_uncorrected_errors": 2,
        }  # fmt: skip
        queue.heartbeat(session, "worker_1", queue="default", state="busy", **about)
        queue.heartbeat(session, "worker_2", queue="default", state="paused", **about)
        queue.heartbeat(session, "worker_3", queue="h200", state="draining", reason="lost", **about)
    claim(sessions)
    seen = scrape(api)
    assert seen["secateur_database_up{}"] == 1
    assert seen["secateur_queue_jobs{queue=default}"] == 2 and seen["secateur_running_jobs{queue=default}"] == 1
    assert 300 <= seen["secateur_queue_oldest_seconds{queue=default}"] < 400
    states = {state: seen[f"secateur_workers{{queue=default,state={state}}}"] for state in queue.WORKER_STATES}
    assert states == {"idle": 0, "busy": 1, "paused": 1, "draining": 0}
    assert seen["secateur_worker_device_memory_bytes{host=bed,queue=default,worker=worker_1}"] == 80
    assert seen["secateur_worker_disk_free_bytes{host=bed,queue=default,worker=worker_2}"] == 2**40
    assert seen["secateur_worker_work_folders{host=bed,queue=default,worker=worker_2}"] == 3
    assert seen["secateur_worker_work_bytes{host=bed,queue=default,worker=worker_2}"] == 4096
    assert seen["secateur_worker_device_utilisation{host=bed,queue=default,worker=worker_1}"] == 0.5
    assert seen["secateur_worker_device_celsius{host=bed,queue=default,worker=worker_1}"] == 61
    assert seen["secateur_worker_device_uncorrected_errors{host=bed,queue=default,worker=worker_1}"] == 2
    failed = {name: seen[f"secateur_worker_device_failed{{host=bed,{name}}}"] for name in (
        "queue=default,worker=worker_1", "queue=default,worker=worker_2", "queue=h200,worker=worker_3"
    )}  # fmt: skip
    assert list(failed.values()) == [0, 0, 1], failed


def test_attempts_and_stages_are_counted_once_and_never_go_back(
    api: TestClient, sessions: sessionmaker[Session], job_body: dict[str, Any]
) -> None:
    for _ in range(12):
        api.post("/v1/jobs", json=job_body)
    problem = {"code": "out_of_memory", "message": "m", "param": None, "retryable": False}
    for _ in range(10):
        job = claim(sessions)
        with transaction(sessions) as session:
            queue.finish_failed(session, *job, problem, stages={"fetch": 0.5, "prune": 400.0})
    job = claim(sessions)
    with transaction(sessions) as session:
        queue.release(session, *job, stages={"fetch": 10**6})
    claim(sessions)
    with transaction(sessions) as session:
        session.execute(text("UPDATE jobs SET lease_expires_at = now() - interval '1 s' WHERE status = 'running'"))
        queue.expire_leases(session)
    assert not [name for name in scrape(api) if "attempts_ended_total" in name], "nothing was added up yet"

    def count() -> None:
        with transaction(sessions) as session:
            count_ended_attempts(session)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count()
    seen = scrape(api)
    ended = "secateur_attempts_ended_total{error_code=%s,method=wanda,outcome=%s,queue=default}"
    assert seen[ended % ("out_of_memory", "failed")] == 10
    assert seen[ended % ("", "released")] == 1 and seen[ended % ("runner_lost", "lost")] == 1
    bucket = "secateur_stage_seconds_bucket{le=%s,outcome=%s,stage=%s}"
    assert seen[bucket % ("0.5", "failed", "fetch")] == 10, "bounds are inclusive"
    assert seen[bucket % ("300.0", "failed", "prune")] == 0 and seen[bucket % ("900.0", "failed", "prune")] == 10
    assert seen[bucket % ("+Inf", "released", "fetch")] == 1
    assert seen[bucket % ("86400.0", "released", "fetch")] == 0
    assert seen["secateur_stage_seconds_sum{outcome=failed,stage=prune}"] == 4000
    assert len([name for name in seen if name.endswith("outcome=failed,stage=prune}") and "bucket" in name]) == len(
        STAGE_BOUNDS
    )
    with transaction(sessions) as session:
        session.execute(text("DELETE FROM jobs"))
    assert scrape(api)[ended % ("out_of_memory", "failed")] == 10, "retention makes counters go back"


def test_without_a_database_the_process_still_answers(tmp_path: Path) -> None:
    away = Settings(home=tmp_path, database_url="postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with TestClient(create_app(away)) as client:
        seen = scrape(client)
    assert seen["secateur_database_up{}"] == 0 and "process_resident_memory_bytes{}" in seen


def test_metrics_can_be_moved_to_a_port_of_their_own_or_turned_off(settings: Settings) -> None:
    port = free_port()
    with TestClient(create_app(settings.model_copy(update={"metrics_port": port}))) as client:
        assert client.get("/metrics").status_code == 404
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert values(answer.read().decode())["secateur_database_up{}"] == 1
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")
    with TestClient(create_app(settings.model_copy(update={"metrics_port": 0}))) as client:
        assert client.get("/metrics").status_code == 404
