"""A change of a job's state is in the audit trail: who made it, from where; and the trail only grows. That each
attempt has its entries is in `test_state_machine`.
"""

from collections.abc import Callable
from typing import Any

import psycopg.errors
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import (
    claim,
    expire_leases,
    finish_succeeded,
    heartbeat,
    release,
)
from core.service.jobs.queue.completion import refuse
from core.service.jobs.tables import JobRow
from secateur_wire.errors import InternalError
from secateur_wire.states import JobStatus

Sessions = sessionmaker[Session]
Step = Callable[[TestClient, Sessions, str], object]

WORKER, HOST = "worker_7", "greenhouse"
BY_WORKER = (f"worker:{WORKER}", HOST)
BY_DISPATCHER = ("dispatcher", None)


def _in_queue(write: Callable[[Session, str], object]) -> Step:
    def step(api: TestClient, sessions: Sessions, job: str) -> object:
        with transaction(sessions) as session:
            return write(session, job)

    return step


def _asks(what: str) -> Step:
    return lambda api, sessions, job: api.post(f"/v1/jobs/{job}/{what}").raise_for_status()


def _lost(session: Session, job: str) -> object:
    session.execute(update(JobRow).values(lease_expires_at=text("now() - interval '1 second'")))
    return expire_leases(session)


CLAIMED = _in_queue(lambda session, job: claim(session, queue="default", worker_id=WORKER, lease_seconds=60))
SUCCEEDED = _in_queue(lambda session, job: finish_succeeded(session, job, 1, metrics={}, report={}, files=[]))
RELEASED = _in_queue(lambda session, job: release(session, job, 1))
REFUSED = _in_queue(lambda session, job: refuse(session, job, InternalError("a fault").problem()))
LOST = _in_queue(_lost)
CANCELLED, RETRIED = _asks("cancel"), _asks("retry")

WALKS: list[tuple[JobStatus, JobStatus, list[Step], str, tuple[str, str | None] | None, dict[str, Any]]] = [
    ("queued", "running", [CLAIMED], "job.start", BY_WORKER, {"attempt": 1}),
    ("queued", "failed", [REFUSED], "job.fail", BY_DISPATCHER, {"error": "internal_error"}),
    ("running", "succeeded", [CLAIMED, SUCCEEDED], "job.succeed", BY_WORKER, {"attempt": 1, "outcome": "succeeded"}),
    ("running", "cancelling", [CLAIMED, CANCELLED], "job.cancel", None, {}),
    ("running", "queued", [CLAIMED, RELEASED], "job.requeue", BY_WORKER, {"outcome": "released"}),
    ("running", "queued", [CLAIMED, LOST], "job.requeue", BY_DISPATCHER, {"outcome": "lost", "error": "runner_lost"}),
    ("cancelling", "cancelled", [CLAIMED, CANCELLED, LOST], "job.stop", BY_DISPATCHER, {"outcome": "cancelled"}),
    ("cancelled", "queued", [CANCELLED, RETRIED], "job.retry", None, {}),
]
"""From, to, how to get there, and the last entry there must be: who made it (None: the caller's key) and details."""


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: f"{walk[0]} to {walk[1]}, {walk[3]} by {walk[4]}")
def test_every_transition_is_noted_with_who_made_it_and_from_where(
    api: TestClient, sessions: Sessions, job_body: dict[str, Any], walk: Any
) -> None:
    source, to, steps, action, by, details = walk
    key = next(key["id"] for key in api.get("/v1/keys").json()["data"])
    job = api.post("/v1/jobs", json=job_body).raise_for_status().json()["id"]
    with transaction(sessions) as session:
        heartbeat(session, WORKER, queue="default", device="cpu", hostname=HOST, pid=1)
    for step in steps[:-1]:
        step(api, sessions, job)
    assert api.get(f"/v1/jobs/{job}").json()["status"] == source
    before = api.get("/v1/audit", params={"object_id": job}).json()["data"]
    steps[-1](api, sessions, job)
    entries = api.get("/v1/audit", params={"object_id": job}).json()["data"]
    assert len(entries) == len(before) + 1, "one entry for one change"
    entry = entries[0]
    assert (entry["action"], entry["actor"], entry["address"]) == (action, *(by or (f"key:{key}", "testclient")))
    assert entry["details"].items() >= {"status": to, **details}.items()


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit", "TRUNCATE audit"])
def test_the_trail_is_never_changed_by_the_service_itself(api: TestClient, sessions: Sessions, statement: str) -> None:
    before = api.get("/v1/audit").json()["data"]
    assert before
    with (
        pytest.raises(DBAPIError, match="audit trail is append-only") as refused,
        transaction(sessions) as session,
    ):
        session.execute(text(statement))
    assert isinstance(refused.value.orig, psycopg.errors.RaiseException)
    assert api.get("/v1/audit").json()["data"] == before
