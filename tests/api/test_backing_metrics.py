"""What is scraped of what the service stands on, of teams that wait, and of workers that are wanted."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

import api.process.metrics
from api.app import create_app
from core.database import transaction
from core.service.jobs import queue
from core.service.jobs.hints import Hints
from core.settings import Settings
from tests.api.test_metrics import scrape
from tests.conftest import bearer
from tests.worker.conftest import eventually
from tests.worker.redis_server import RedisServer, redis_running

Sessions = sessionmaker[Session]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.process.metrics, "CACHED_SECONDS", 0.0)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_running(tmp_path) as server:
        yield server


def submit(api: TestClient, job_body: dict[str, Any], times: int, key: str | None = None) -> None:
    for _ in range(times):
        headers = bearer(key) if key else {}
        assert api.post("/v1/jobs", json=job_body, headers=headers).status_code == 201


def limit(sessions: Sessions, team: str, **limits: float | None) -> None:
    columns = ", ".join(f"{name} = :{name}" for name in limits)
    with transaction(sessions) as session:
        session.execute(text(f"UPDATE teams SET {columns} WHERE id = :team"), {"team": team, **limits})


def claim_all(sessions: Sessions) -> int:
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
        ({"max_running": 2}, 2),
        ({"max_running": 0}, 0),
        ({"max_running": None, "max_device_seconds": 0}, 0),
    ],
)
def test_what_is_runnable_is_what_workers_are_given(
    api: TestClient,
    sessions: Sessions,
    team: str,
    job_body: dict[str, Any],
    limits: dict[str, float | None],
    expected: int,
) -> None:
    submit(api, job_body, 4)
    limit(sessions, team, **limits)
    seen = scrape(api)
    assert seen["secateur_queue_jobs{queue=default}"] == 4
    assert seen["secateur_queue_runnable_jobs{queue=default}"] == expected
    assert seen["secateur_queue_wanted_workers{queue=default}"] == expected
    assert claim_all(sessions) == expected
    after = scrape(api)
    assert after["secateur_queue_runnable_jobs{queue=default}"] == 0, "the quota is used up"
    assert after["secateur_queue_wanted_workers{queue=default}"] == expected, "a busy worker is not wanted any more"


def test_teams_that_wait_longest_are_told_apart(
    api: TestClient,
    sessions: Sessions,
    team: str,
    other_team: str,
    job_body: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit(api, job_body, 2)
    with transaction(sessions) as session:
        session.execute(text("UPDATE jobs SET created_at = now() - interval '1 hour'"))
        names = {row.id: row.name for row in session.execute(text("SELECT id, name FROM teams"))}
    submit(api, job_body, 1)
    with transaction(sessions) as session:
        newest = "(SELECT id FROM jobs ORDER BY created_at DESC LIMIT 1)"
        session.execute(text(f"UPDATE jobs SET team_id = :team WHERE id = {newest}"), {"team": other_team})
    seen = scrape(api)
    assert seen[f"secateur_team_waiting_jobs{{team={names[team]}}}"] == 2
    assert 3600 <= seen[f"secateur_team_oldest_seconds{{team={names[team]}}}"] < 3700
    assert seen[f"secateur_team_waiting_jobs{{team={names[other_team]}}}"] == 1
    monkeypatch.setattr("api.process.metrics._MOST_TEAMS", 1)
    told = {name for name in scrape(api) if name.startswith("secateur_team_waiting_jobs")}
    assert told == {f"secateur_team_waiting_jobs{{team={names[team]}}}"}


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
