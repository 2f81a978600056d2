"""What Prometheus scrapes: of the process, and of the fleet as the database knows it."""

import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
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
from core.service.jobs.hints import Hints
from core.settings import Settings
from tests.worker.conftest import eventually
from tests.worker.redis_server import RedisServer, redis_running


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


def take(sessions: sessionmaker[Session]) -> tuple[str, int]:
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
    take(sessions)
    seen = scrape(api)
    assert seen["secateur_database_up{}"] == 1
    assert seen["secateur_queue_jobs{queue=default}"] == 2 and seen["secateur_running_jobs{queue=default}"] == 1
    assert 300 <= seen["secateur_queue_oldest_seconds{queue=default}"] < 400
    states = {state: seen[f"secateur_workers{{queue=default,state={state}}}"] for state in queue.WORKER_STATES}
    assert states == {"idle": 0, "busy": 1, "paused": 1, "draining": 0}
    figures = {
        "device_memory_bytes": 80, "disk_free_bytes": 2**40, "work_folders": 3, "work_bytes": 4096,
        "device_utilisation": 0.5, "device_celsius": 61, "device_uncorrected_errors": 2,
    }  # fmt: skip
    for name, figure in figures.items():
        assert seen[f"secateur_worker_{name}{{host=bed,queue=default,worker=worker_2}}"] == figure, name
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
        job = take(sessions)
        with transaction(sessions) as session:
            queue.finish_failed(session, *job, problem, stages={"fetch": 0.5, "prune": 400.0})
    job = take(sessions)
    with transaction(sessions) as session:
        queue.release(session, *job, stages={"fetch": 10**6})
    take(sessions)
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


def limit(sessions: sessionmaker[Session], team: str, **limits: float | None) -> None:
    columns = ", ".join(f"{name} = :{name}" for name in limits)
    with transaction(sessions) as session:
        session.execute(text(f"UPDATE teams SET {columns} WHERE id = :team"), {"team": team, **limits})


def claim_all(sessions: sessionmaker[Session]) -> int:
    """Return how many jobs a crowd of workers is given."""
    claimed = 0
    while True:
        with transaction(sessions) as session:
            if queue.claim(session, queue="default", worker_id=f"worker_{claimed}", lease_seconds=60) is None:
                return claimed
        claimed += 1


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_running": None}, 4),
        ({"max_running": 2}, 2),
        ({"max_running": 0}, 0),
        ({"max_running": None, "max_device_seconds": 0}, 0),
    ],
)
def test_what_is_runnable_is_what_workers_are_given(
    api: TestClient,
    sessions: sessionmaker[Session],
    team: str,
    job_body: dict[str, Any],
    limits: dict[str, float | None],
    expected: int,
) -> None:
    for _ in range(4):
        api.post("/v1/jobs", json=job_body).raise_for_status()
    limit(sessions, team, **limits)
    with transaction(sessions) as session:
        session.execute(text("UPDATE jobs SET created_at = now() - interval '1 hour'"))
        name = session.scalar(text("SELECT name FROM teams WHERE id = :team"), {"team": team})
    seen = scrape(api)
    assert seen[f"secateur_team_waiting_jobs{{team={name}}}"] == 4
    assert 3600 <= seen[f"secateur_team_oldest_seconds{{team={name}}}"] < 3700
    assert seen["secateur_queue_jobs{queue=default}"] == 4
    assert seen["secateur_queue_runnable_jobs{queue=default}"] == expected
    assert seen["secateur_queue_wanted_workers{queue=default}"] == expected
    assert claim_all(sessions) == expected
    after = scrape(api)
    assert after["secateur_queue_runnable_jobs{queue=default}"] == 0, "the quota is used up"
    assert after["secateur_queue_wanted_workers{queue=default}"] == expected, "a busy worker is not wanted any more"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_running(tmp_path) as server:
        yield server


def test_a_redis_that_answers_hangs_and_is_full(
    settings: Settings, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(create_app(settings.model_copy(update={"broker_url": redis.url}))) as client:
        redis.client.config_set("maxmemory", 50_000_000)
        hints = Hints(client.app.state.api.broker)  # type: ignore[attr-defined]
        hints.send("job_1", "default")
        hints.send("job_2", "default")
        seen = scrape(client)
        assert seen["secateur_broker_up{}"] == 1 and seen["secateur_broker_hints{queue=default}"] == 2
        assert seen["secateur_broker_memory_limit_bytes{}"] == 50_000_000
        assert 0 < seen["secateur_broker_memory_used_bytes{}"] < 50_000_000
        monkeypatch.setattr(api.process.metrics, "LONGEST_ANSWER_SECONDS", 5.0)  # of the others, on a busy machine
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            seen = scrape(client)
        finally:
            os.kill(redis.pid, signal.SIGCONT)
        assert seen["secateur_broker_up{}"] == 0 and seen["secateur_store_up{}"] == 1
        assert seen["secateur_database_up{}"] == 1, "one that hangs takes the others along"
        eventually(lambda: scrape(client)["secateur_broker_up{}"] == 1)
