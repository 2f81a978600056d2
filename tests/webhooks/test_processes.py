"""Everything a delivery passes through, killed again and again: no event is lost, none comes before one it follows."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from standardwebhooks import Webhook as Verifier

from bench.parts import free_port
from core.database import transaction
from core.engine.architectures.describe import inspect_folder
from core.service.jobs.tables import JobEventRow, JobRow
from core.service.webhooks.tables import WebhookDeliveryRow
from core.settings import Settings
from secateur import Client
from tests.webhooks.conftest import Webhooks
from tests.worker.conftest import eventually
from tests.worker.forked_parts import fork_part
from worker.embedded.serve import part_environment
from worker.processes import ChildProcess, spawn

RECEIVER = Path(__file__).with_name("receiver_process.py")
QUICK = {
    "SECATEUR_DISPATCH_INTERVAL_SECONDS": "0.5",
    "SECATEUR_HINT_STALE_SECONDS": "1",
    "SECATEUR_LEASE_SECONDS": "2",
    "SECATEUR_LEASE_RENEW_SECONDS": "0.5",
    "SECATEUR_RETRY_DELAY_SECONDS": "0",
    "SECATEUR_MAX_ATTEMPTS": "20",
    "SECATEUR_DISK_WATERMARK_BYTES": "1000000",
    "SECATEUR_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "SECATEUR_WEBHOOK_RETRY_DELAYS": ",".join(["0.2"] * 1000),
    "SECATEUR_WEBHOOK_TIMEOUT_SECONDS": "5",
}


class Parts:
    """API, worker, dispatcher and receiver: ended by SIGKILL, whole groups, and started anew."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.ports = {"api": free_port(), "receiver": free_port()}
        self.lines = folder / "received.jsonl"
        self._folder = folder
        assert settings.secret_key
        own = {"LOAD_FOLDER": str(folder), "SECATEUR_SECRET_KEY": settings.secret_key}
        self._environment = {**os.environ, **part_environment(settings), **QUICK, **own}
        celery = [sys.executable, "-m", "celery", "--quiet", "--app", "tests.load.noop_worker", "worker"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
        uvicorn = [sys.executable, "-m", "uvicorn", "--factory", "tests.load.noop_api:create_app"]
        self._commands = {
            "receiver": [sys.executable, "-I", "-S", str(RECEIVER), str(self.ports["receiver"]), str(self.lines)],
            "api": [*uvicorn, "--port", str(self.ports["api"]), "--log-level", "warning"],
            "dispatcher": [sys.executable, "-m", "worker.dispatcher"],
            "worker": [*celery, *quiet, "--concurrency", "1", "--hostname", "worker@%h"],
        }
        self._running: dict[str, ChildProcess] = {}

    def start(self, name: str) -> None:
        command, environment = self._commands[name], self._environment
        with open(self._folder / f"{name}.log", "ab") as log:
            if name == "receiver":
                part = spawn(command, name=name, stdout=log, stderr=subprocess.STDOUT, environment=environment)
            else:
                part = fork_part(command, name=name, log=log, environment=environment)
        self._running[name] = part

    def kill(self, name: str) -> None:
        self._running.pop(name).end()

    def end(self) -> None:
        for name in list(self._running):
            self.kill(name)

    def names(self) -> list[str]:
        return list(self._commands)

    def received(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.read_text().splitlines()] if self.lines.exists() else []


@pytest.fixture
def parts(settings: Settings, tmp_path: Path) -> Iterator[Parts]:
    settings.home.mkdir(parents=True, exist_ok=True)
    running = Parts(settings.model_copy(update={"home": settings.home.resolve()}), tmp_path)
    for name in running.names():
        running.start(name)
    yield running
    running.end()


def test_no_event_is_lost_and_all_come_in_order_whatever_is_killed(
    parts: Parts,
    webhooks: Webhooks,
    sessions: sessionmaker[Session],
    settings: Settings,
    model: str,
    member_key: str,
    tmp_path: Path,
) -> None:
    """Each job is queued, runs and succeeds, which two endpoints are told: six deliveries. Every part is killed."""
    number = 16
    (tmp_path / "model.json").write_text(inspect_folder(settings.models_root / model).model_dump_json())
    secrets = {
        f"/{name}": webhooks.add(f"http://127.0.0.1:{parts.ports['receiver']}/{name}").secret for name in ("a", "b")
    }

    def is_over() -> bool:
        with transaction(sessions) as session:
            ended = session.scalar(select(func.count()).where(JobRow.status == "succeeded"))
            waiting = session.scalar(select(func.count()).where(WebhookDeliveryRow.state == "pending"))
        return ended == number and waiting == 0

    submitted: list[str] = []
    crowd = threading.Thread(target=submit, args=(parts, model, member_key, number, submitted))
    crowd.start()
    chance = random.Random(number)
    victims = parts.names()
    chance.shuffle(victims)
    for name in victims:
        seen = len(parts.received())
        eventually(lambda seen=seen: len(parts.received()) > seen + 10 or is_over())  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.3))  # so that it is hit at any moment of its work
        parts.kill(name)
        parts.start(name)
    crowd.join(120)
    assert len(submitted) == number

    eventually(is_over)
    happened = states_of_jobs(sessions)
    assert len(happened) >= 3 * number
    came: dict[tuple[str, str], list[int]] = defaultdict(list)
    for each in parts.received():
        event = Verifier(secrets[each["path"]]).verify(each["body"], each["headers"])
        assert event["type"] == f"job.{event['data']['status']}"
        came[each["path"], event["data"]["id"]].append(event["data"]["sequence"])
    for path in secrets:
        told = {(job, number) for (where, job), numbers in came.items() if where == path for number in numbers}
        assert told == happened
    disordered = {key: numbers for key, numbers in came.items() if numbers != sorted(numbers)}
    assert not disordered


def submit(parts: Parts, model: str, key: str, number: int, submitted: list[str]) -> None:
    with Client(f"http://127.0.0.1:{parts.ports['api']}", key, retries=60) as client:
        for _ in range(number):
            submitted.append(client.submit(model=model, method="noop", sparsity=0.5).id)
            time.sleep(0.1)


def states_of_jobs(sessions: sessionmaker[Session]) -> set[tuple[str, int]]:
    """What the jobs' own events say: (job, number)."""
    with transaction(sessions) as session:
        rows = session.execute(select(JobEventRow.job_id, JobEventRow.sequence).where(JobEventRow.type == "status"))
        return {(row.job_id, row.sequence) for row in rows}
