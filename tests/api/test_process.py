import json
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
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

_SERVE_AND_LIST_MODULES = """
import json, sys, threading, time
import httpx, uvicorn
from api.app import create_app

server = uvicorn.Server(uvicorn.Config(create_app(), host="127.0.0.1", port=0, log_level="warning"))
thread = threading.Thread(target=server.run)
thread.start()
while not server.started:
    time.sleep(0.01)
base = "http://127.0.0.1:%d" % server.servers[0].sockets[0].getsockname()[1]
headers = {"Authorization": "Bearer " + sys.argv[1]}
for method, path, body in json.loads(sys.argv[2]):
    httpx.request(method, base + path, json=body, headers=headers).raise_for_status()
server.should_exit = True
thread.join()
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_a_running_api_has_loaded_nothing_of_the_engine_or_the_hub(
    settings: Settings, admin_key: str, job_body: dict[str, object]
) -> None:
    calls = [
        ("GET", "/v1/methods", None),
        ("POST", "/v1/models/inspect", job_body),
        ("POST", "/v1/jobs", job_body),
        ("GET", "/v1/jobs", None),
        ("GET", "/openapi.json", None),
    ]
    environment = {
        "SECATEUR_HOME": str(settings.home),
        "SECATEUR_DATABASE_URL": settings.database_url or "",
        "SECATEUR_SECRET_KEY": settings.secret_key or "",
    }
    ended = subprocess.run(
        [sys.executable, "-c", _SERVE_AND_LIST_MODULES, admin_key, json.dumps(calls)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    modules = set(ended.stdout.split())
    assert {"api", "core", "fastapi"} <= modules
    assert modules.isdisjoint({"torch", "transformers", "huggingface_hub", "worker"})


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


def test_readiness_is_asked_once_in_a_moment_however_many_ask(
    api_client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.process.readiness.CACHED_SECONDS", 600.0)
    asked: list[object] = []

    def count(broker: object) -> bool:
        asked.append(broker)
        return True

    monkeypatch.setattr("api.process.readiness.broker_answers", count)
    with ThreadPoolExecutor(8) as pool:
        answers = [each.status_code for each in pool.map(lambda _: api_client.get("/readyz"), range(16))]
    assert answers == [200] * 16 and len(asked) == 1


def test_a_store_that_hangs_holds_one_thread_and_probers_are_told_so(
    settings: Settings, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.storage.s3._PROBE_SECONDS", 600.0)
    monkeypatch.setattr("api.process.readiness.ANSWER_SECONDS", 5.0)
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
    assert refused["detail"] == "not ready: store (no answer within 5 s)"
    assert (refused["checks"]["store"], refused["checks"]["database"]) == (False, True)


def test_methods_are_listed_with_their_schemas(api: TestClient) -> None:
    methods = {method["id"]: method for method in api.get("/v1/methods").json()["data"]}
    assert set(methods) >= {"random", "magnitude", "wanda", "sparsegpt"}
    assert methods["wanda"]["needs"] == {"calibration": True, "gradients": False, "training": False}
    assert "block_size" in methods["sparsegpt"]["parameters"]["properties"]
    assert methods["wanda"]["paper"]["year"] == 2023
