"""The dashboard: every query is answered by a Prometheus that scrapes an API process which has something to tell."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

import api.process.metrics
from bench.parts import until
from core.database import transaction
from core.service.duties.times import note_done
from core.service.jobs import fleet, queue
from core.settings import Settings
from core.storage import open_store
from core.storage.s3 import S3Store
from tests.production.conftest import PASSWORD
from tests.production.files import ROOT
from tests.production.prometheus import watch
from tests.production.test_operations_page import ALERTS

DASHBOARD = ROOT / "deploy" / "grafana" / "secateur.json"
Sessions = sessionmaker[Session]


@pytest.fixture
def settings(settings: Settings, redis_port: int, store_port: int) -> Settings:
    kept = {
        "broker_url": f"redis://127.0.0.1:{redis_port}/0",
        "broker_password": SecretStr(PASSWORD),
        "store_url": "s3://dashboard",
        "store_endpoint": f"http://127.0.0.1:{store_port}",
        "store_region": "us-east-1",
        "store_access_key": "access",
        "store_secret_key": SecretStr("secret"),
    }
    made = settings.model_copy(update=kept)
    store = open_store(made)
    assert isinstance(store, S3Store)
    store.make_bucket()
    return made


@pytest.fixture
def instance(
    live_api: httpx.Client, sessions: Sessions, job_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> httpx.Client:
    """An API process whose fleet has a GPU, a job that failed, one that succeeded, one that waits, and a dispatcher."""
    monkeypatch.setattr(api.process.metrics, "CACHED_SECONDS", 0.0)
    for _ in range(4):
        live_api.post("/v1/jobs", json=job_body).raise_for_status()
    with transaction(sessions) as session:
        queue.heartbeat(
            session,
            "worker_1",
            queue="default",
            state="busy",
            device="cuda",
            hostname="bed",
            pid=1,
            memory_bytes=2**30,
            device_memory_bytes=2**36,
            device_memory_used_bytes=2**35,
            device_utilisation=0.5,
            device_celsius=61,
            device_uncorrected_errors=0,
            disk_free_bytes=2**40,
            work_folders=1,
            work_bytes=4096,
        )
        note_done(session, "hints", 2)
    for outcome in ("failed", "succeeded"):
        end_a_job(sessions, outcome)
    live_api.get("/v1/jobs").raise_for_status()
    return live_api


def end_a_job(sessions: Sessions, outcome: str) -> None:
    problem = {"code": "out_of_memory", "message": "m", "param": None, "retryable": False}
    with transaction(sessions) as session:
        claimed = queue.claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
        assert claimed is not None
        queue.finish_failed(session, claimed.job_id, claimed.attempt, problem, stages={"prune": 4.0})
        session.execute(text("UPDATE job_attempts SET outcome = :outcome WHERE NOT counted"), {"outcome": outcome})
        fleet.count_ended_attempts(session)


def panels() -> Iterator[tuple[str, str, str]]:
    """Yield the title, the query and the legend of everything the dashboard draws."""
    board = json.loads(DASHBOARD.read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]


def filled_in(query: str) -> str:
    return query.replace("$queue", ".*").replace("$__rate_interval", "30s")


def test_every_query_of_the_dashboard_is_answered(instance: httpx.Client, sessions: Sessions, tmp_path: Path) -> None:
    with watch(str(instance.base_url), tmp_path) as prometheus:
        until(lambda: prometheus.scrapes(1), 60)  # what ends from now on is an increase
        end_a_job(sessions, "succeeded")
        instance.get("/v1/jobs").raise_for_status()
        until(lambda: prometheus.scrapes(3), 60)
        for title, query, legend in panels():
            found = prometheus.query(filled_in(query))
            assert found, f"{title}: {query}"
            labels = set(re.findall(r"{{(\w+)}}", legend))
            assert all(labels <= each["metric"].keys() for each in found), f"{title}: {legend}"
            assert any(math.isfinite(float(each["value"][1])) for each in found), f"{title}: {query}"
        for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]:
            prometheus.query(rule["expr"])
