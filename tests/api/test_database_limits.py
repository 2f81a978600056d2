"""Limits of a transaction, by the role of its connection, and what its caller is told."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from bench.parts import free_port
from bench.pooler import configure_pooler, pooled_url
from core.database import Role, session_factory, transaction, transient_reason
from core.database_url import libpq_url
from core.service.jobs import queue
from core.service.jobs.queue import JobsLocked, claim
from core.service.jobs.tables import JobEventRow
from core.service.teams.tables import TeamRow
from core.settings import Settings
from tests.api.test_bodies import problem_of
from tests.conftest import bearer
from tests.jobs.conftest import NewJob
from tests.jobs.conftest import new_job as new_job
from tests.production.programs import needed
from tests.serving import lent_app
from tests.small_disks import small_disk
from tests.stores.test_orphans import new_job as add_job
from tests.worker.conftest import eventually
from tests.worker.filling_runner import fill
from worker.processes import spawn
from worker.supervisor.lease import Lease
from worker.supervisor.recorder import LeaseLost, Recorder

Sessions = sessionmaker[Session]
ROLES: tuple[Role, ...] = get_args(Role)
LIMITS = [
    func.current_setting(name) for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
]


def limits_of(settings: Settings, role: Role) -> tuple[str, ...]:
    """The limits of a transaction of this role, and of one after it on the same connection."""
    sessions = session_factory(settings, role)
    with sessions() as session:
        session.execute(text("SELECT 1"))
        session.commit()
        found = session.execute(select(*LIMITS)).one()
    sessions.kw["bind"].dispose()
    return tuple(found)


@contextmanager
def holding(sessions: Sessions, team: str) -> Iterator[Session]:
    """Another transaction that holds the team's row, until it is committed or the block ends."""
    with transaction(sessions) as session:
        session.execute(select(TeamRow).where(TeamRow.id == team).with_for_update(key_share=True))
        yield session


@pytest.fixture
def short(settings: Settings) -> Settings:
    return settings.model_copy(update={"database_request_lock_seconds": 0.3})


@pytest.fixture
def pooled(short: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Settings whose database is reached through PgBouncer, which lends two connections by the transaction."""
    assert short.database_url is not None
    port = free_port()
    configuration = configure_pooler(tmp_path, short.database_url, port, connections=2)
    tmp_path.chmod(0o755)
    with open(tmp_path / "pgbouncer.log", "wb") as log:
        pooler = spawn([needed("pgbouncer"), str(configuration)], name="pgbouncer", stdout=log, stderr=log)
    through = short.model_copy(update={"database_url": pooled_url(short.database_url, port)})
    sessions = session_factory(through)

    def answers() -> bool:
        try:
            with transaction(sessions) as session:
                return session.scalar(text("SELECT true")) is True
        except DBAPIError:
            return False

    try:
        eventually(answers)
        sessions.kw["bind"].dispose()
        yield through
    finally:
        pooler.end(5)


@contextmanager
def application(settings: Settings) -> Iterator[TestClient]:
    with lent_app(settings) as app, TestClient(app, raise_server_exceptions=False) as client:
        yield client


def refused_while_held(
    settings: Settings, sessions: Sessions, keys: tuple[str, str], team: str, job_body: dict[str, Any]
) -> None:
    """A request that needs the held row gets 503 with Retry-After, another team's and a later one what they ask."""
    mine, others = (bearer(key) for key in keys)
    with application(settings) as client:
        with holding(sessions, team) as holder:
            response = client.post("/v1/jobs", json=job_body, headers=mine)
            problem = problem_of(response, 503, "unavailable")
            assert "changed by somebody else" in problem["detail"]
            assert int(response.headers["Retry-After"]) > 0
            assert client.get("/v1/team", headers=mine).status_code == 200
            assert client.get("/v1/team", headers=others).status_code == 200
            holder.commit()
        assert client.post("/v1/jobs", json=job_body, headers=mine).status_code == 201


@pytest.fixture
def limited_team(sessions: Sessions, team: str) -> str:
    """A team whose row is locked by each of its submissions."""
    with transaction(sessions) as session:
        session.execute(update(TeamRow).where(TeamRow.id == team).values(max_queued=50))
    return team


def test_a_pooler_drops_none_of_it(
    pooled: Settings,
    sessions: Sessions,
    new_job: NewJob,
    admin_key: str,
    other_team_key: str,
    limited_team: str,
    other_team: str,
    job_body: dict[str, Any],
) -> None:
    """Limits are each transaction's own, though two roles are lent the same connections; others' jobs are claimed while
    a team's row is held, and a request for that row is refused in time.
    """
    for _ in range(2):
        assert limits_of(pooled, "worker") == ("30s", "1min", "1min")
        assert limits_of(pooled, "request") == ("300ms", "30s", "2min")
    new_job(limited_team, priority=5)
    other = new_job(other_team)
    workers = session_factory(pooled, "worker")
    with holding(sessions, limited_team):
        with transaction(workers) as session:
            claimed = claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
            assert claimed is not None and claimed.job_id == other
        with pytest.raises(JobsLocked), transaction(workers) as session:
            claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
    workers.kw["bind"].dispose()
    refused_while_held(pooled, sessions, (admin_key, other_team_key), limited_team, job_body)


def test_a_statement_that_takes_too_long_answers_503(
    settings: Settings, sessions: Sessions, admin_key: str, limited_team: str, job_body: dict[str, Any]
) -> None:
    limits = {"database_request_lock_seconds": 0, "database_request_statement_seconds": 0.3}
    with application(settings.model_copy(update=limits)) as client, holding(sessions, limited_team):
        response = client.post("/v1/jobs", json=job_body, headers=bearer(admin_key))
        assert "did not finish in time" in problem_of(response, 503, "unavailable")["detail"]
        assert "Retry-After" in response.headers


def test_a_transaction_that_stands_still_is_ended_and_what_it_held_is_free(
    settings: Settings, sessions: Sessions, team: str
) -> None:
    frozen = session_factory(settings.model_copy(update={"database_worker_idle_seconds": 0.2}), "worker")

    def freeze() -> None:
        with holding(frozen, team) as holder:
            with transaction(sessions) as session:  # waits for the row, within a request's limit
                session.execute(update(TeamRow).where(TeamRow.id == team).values(weight=2))
            holder.execute(text("SELECT 1"))

    with pytest.raises(DBAPIError) as ended:
        freeze()
    assert transient_reason(ended.value) == "the database was left waiting for too long"
    frozen.kw["bind"].dispose()


TABLE = "job_events"


@pytest.fixture
def database_disk(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """A small disk that the events of jobs are on."""
    url = libpq_url(settings.database_url or "")
    with psycopg.connect(url, autocommit=True) as connection, small_disk(tmp_path / "database", 2**20) as folder:
        [data_folder] = connection.execute("SHOW data_directory").fetchone() or ()
        owner = Path(str(data_folder)).stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
        for parent in folder.parents:
            if not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)  # the server is another user
        connection.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        connection.execute(f"TRUNCATE {TABLE}")  # pages that earlier tests left would have room
        connection.execute(f"ALTER TABLE {TABLE} SET TABLESPACE small")
        try:
            yield folder
        finally:
            (folder / "of-somebody-else").unlink(missing_ok=True)
            connection.execute(f"ALTER TABLE {TABLE} SET TABLESPACE pg_default")
            connection.execute("DROP TABLESPACE small")


def test_a_request_is_refused_as_unavailable_and_a_worker_tries_again(
    api: TestClient, settings: Settings, sessions: sessionmaker[Session], team: str, database_disk: Path
) -> None:
    with transaction(sessions) as session:
        job_id = add_job(session, team, "running", 1)
        cancelled = add_job(session, team, "queued", 0)
    fill(database_disk)
    lease = Lease(sessions, job_id, 1, "worker_1", lease_seconds=1.5, renew_seconds=60)
    recorder = Recorder(sessions, job_id, 1, lease)
    with pytest.raises(LeaseLost):  # it tried for as long as the lease would have held
        recorder.event("log", {"level": "info", "message": "x" * 4000})
    answer = api.post(f"/v1/jobs/{cancelled}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
    with transaction(sessions) as session:
        assert queue.status_of(session, cancelled) == "queued", "half of it was written"
        assert session.scalars(select(JobEventRow)).all() == []
    (database_disk / "of-somebody-else").unlink()
    with transaction(sessions) as session:
        queue.request_cancel(session, cancelled)
        assert queue.status_of(session, cancelled) == "cancelled"
