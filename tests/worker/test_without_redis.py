"""Redis killed: what the clock does is done all the same, and workers find their jobs by themselves."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text

from core.database import transaction
from core.service.jobs import queue
from core.service.jobs.broker import celery_app
from core.service.jobs.hints import Hints
from core.service.jobs.tables import WorkerRow
from core.settings import Settings
from tests.triggers.conftest import make_trigger
from tests.webhooks.conftest import Webhooks
from tests.webhooks.receiver import receiving
from tests.worker.conftest import Held, Queue, StartPart, eventually, impatient
from tests.worker.redis_server import RedisServer

NETWORK = "127.0.0.0/8"


@pytest.fixture
def settings(settings: Settings, redis: RedisServer) -> Settings:
    networks = [ip_network(NETWORK)]
    return impatient(settings).model_copy(update={"broker_url": redis.url, "webhook_allowed_networks": networks})


@pytest.fixture
def variables(settings: Settings) -> dict[str, str]:
    assert settings.broker_url and settings.secret_key
    return {
        "SECATEUR_BROKER_URL": settings.broker_url,
        "SECATEUR_SECRET_KEY": settings.secret_key,
        "SECATEUR_WEBHOOK_ALLOWED_NETWORKS": NETWORK,
        "SECATEUR_DISPATCH_INTERVAL_SECONDS": "0.5",
        "SECATEUR_HINT_STALE_SECONDS": "1",
        "SECATEUR_WORKER_POLL_SECONDS": "1",
        "SECATEUR_LEASE_RENEW_SECONDS": "0.5",
    }


def take_as_a_worker_that_dies(jobs: Queue, job_id: str) -> None:
    with transaction(jobs.sessions) as session:
        claim = queue.claim(session, queue="default", worker_id="worker_lost", lease_seconds=600)
    assert claim is not None and claim.job_id == job_id


def workers_known(jobs: Queue) -> list[str]:
    """States of the workers, oldest first; one that was killed is among them."""
    with transaction(jobs.sessions) as session:
        return list(session.scalars(select(WorkerRow.state).order_by(WorkerRow.started_at)))


def test_with_redis_killed_leases_webhooks_triggers_and_jobs_go_on(
    redis: RedisServer,
    variables: dict[str, str],
    jobs: Queue,
    job_body: dict[str, Any],
    settings: Settings,
    api: TestClient,
    team: str,
    start_part: StartPart,
    tmp_path: Path,
) -> None:
    held = Held("prune", tmp_path)
    lost = jobs.submit(job_body)
    take_as_a_worker_that_dies(jobs, lost)
    start_part("dispatcher", **variables)
    worker = start_part("worker", stand_in=held.behaviour, **variables)
    running = jobs.submit(job_body)
    eventually(lambda: jobs.job(running).status == "running")
    template = {"name": "nightly", "template": job_body, "placeholders": {}}
    trigger = make_trigger(api, template, schedule={"cron": "0 3 * * *", "timezone": "Europe/Berlin"})
    redis.kill()

    with receiving() as receiver:
        Webhooks(jobs.sessions, settings, team).add(receiver.url())
        with transaction(jobs.sessions) as session:  # ten minutes later, all at once
            session.execute(text("UPDATE triggers SET next_fire_at = now() - interval '1 second'"))
        jobs.end_lease(lost)
        eventually(lambda: jobs.job(lost).status == "queued")
        [firing] = eventually(trigger.firings)
        assert firing["outcome"] == "accepted"
        assert jobs.job(running).status == "running"
        eventually(lambda: any(each.event["data"]["id"] == lost for each in receiver.of("/ok")))
    held.let_go()
    for job_id in (running, lost, firing["job_id"]):
        jobs.succeeded(job_id)

    worker.end()
    start_part("worker", stand_in={}, **variables)  # while there is no broker
    eventually(lambda: len(workers := workers_known(jobs)) == 2 and workers[-1] == "idle")
    jobs.succeeded(jobs.submit(job_body))  # by a look of its own

    redis.start()
    Hints(celery_app(settings)).send("job_1", "default")
    eventually(lambda: redis.client.llen("default") == 0)  # it takes hints again
