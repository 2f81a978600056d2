import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker

from api.app import create_app
from core.database import transaction
from core.service.jobs.queue import heartbeat
from core.service.teams.tokens import new_token
from core.settings import Settings
from tests.conftest import bearer
from tests.serving import served


def test_without_a_database_requests_are_told_to_come_back(tmp_path: Path) -> None:
    away = Settings(home=tmp_path, database_url="postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with TestClient(create_app(away)) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        refusal = client.get("/readyz")
        assert refusal.status_code == 503 and refusal.headers["Retry-After"]
        assert refusal.json()["checks"]["database"] is False and refusal.json()["can_accept"] is False
        refused = client.get("/v1/jobs", headers=bearer(new_token()))
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert refused.headers["Retry-After"]


def test_a_service_without_workers_can_take_jobs_and_says_that_it_cannot_run_them(
    api_client: TestClient, sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.process.readiness.CACHED_SECONDS", 0.0)
    waiting = api_client.get("/readyz")
    assert waiting.status_code == 200
    assert waiting.json() == {
        "status": "ready",
        "can_accept": True,
        "can_run": False,
        "checks": {"database": True, "broker": True, "store": True, "workers": False, "devices": True},
    }
    with transaction(sessions) as session:
        heartbeat(session, "worker_1", queue="default", device="cpu", hostname="bed", pid=1)
    ready = api_client.get("/readyz")
    assert (ready.status_code, ready.json()["can_run"]) == (200, True)


def test_a_store_that_hangs_holds_one_thread_and_probers_are_told_so(
    settings: Settings, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.storage.s3._PROBE_SECONDS", 600.0)
    monkeypatch.setattr("api.process.readiness.ANSWER_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bucket = {
            "store_url": "s3://bucket",
            "store_endpoint": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "store_access_key": "key",
            "store_secret_key": SecretStr("secret"),
        }
        app = create_app(settings.model_copy(update=bucket))
        with served(app) as url, httpx.Client(base_url=url, timeout=120) as client, ThreadPoolExecutor(50) as pool:
            probes = [pool.submit(client.get, "/readyz") for _ in range(50)]
            assert client.get("/v1/jobs", headers=bearer(admin_key)).status_code == 200, "others have threads"
            answers = [probe.result() for probe in probes]
            asking = [thread for thread in threading.enumerate() if thread.name == "ready store"]
    assert {answer.status_code for answer in answers} == {503} and len(asking) == 1
    refused = answers[0].json()
    assert refused["detail"] == "not ready: store (no answer within 2 s)"
    assert (refused["checks"]["store"], refused["checks"]["database"]) == (False, True)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"log_format": "json"}))


@pytest.fixture
def client(app: FastAPI, admin_key: str) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False, headers=bearer(admin_key)) as client:
        yield client


def lines(written: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.splitlines()]


@pytest.mark.parametrize("asked", ["", "two words", 'quote"', "x" * 200, "ümlaut".encode().decode("latin-1")])
def test_an_id_that_is_not_sane_is_replaced(client: TestClient, asked: str) -> None:
    given = client.get("/healthz", headers={"X-Request-Id": asked.encode("latin-1")}).headers["X-Request-Id"]
    assert given.startswith("req_") and given != client.get("/healthz").headers["X-Request-Id"]


def test_requests_are_logged_with_route_team_and_key_and_faults_with_their_id(
    app: FastAPI, client: TestClient, capsys: pytest.CaptureFixture[str], team: str
) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("a fault of ours")

    answer = client.get("/v1/jobs/job_nothing", headers={"X-Request-Id": "from-the-proxy-1"})
    assert answer.headers["X-Request-Id"] == "from-the-proxy-1"
    assert client.get("/broken").status_code == 500
    client.get("/no/such/place")
    written = lines(capsys.readouterr().err)
    requests = [line for line in written if line["event"] == "request"]
    assert [(line["route"], line["status"]) for line in requests] == [
        ("/v1/jobs/{job_id}", 404), ("/broken", 500), ("-", 404),
    ]  # fmt: skip
    assert requests[0]["request_id"] == "from-the-proxy-1" and requests[0]["team"] == team
    assert requests[0]["key"].startswith("key_") and requests[0]["method"] == "GET"
    [fault] = [line for line in written if line["event"] == "unexpected error"]
    assert "a fault of ours" in fault["exception"] and fault["request_id"].startswith("req_")
