"""A full disk under the database: refused as what passes, nothing half written, and all goes on once there is room."""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.database_url import libpq_url
from core.service.jobs import queue
from core.service.jobs.tables import JobEventRow
from core.settings import Settings
from tests.small_disks import small_disk
from tests.stores.test_orphans import new_job
from tests.worker.filling_runner import fill
from worker.supervisor.lease import Lease
from worker.supervisor.recorder import LeaseLost, Recorder

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
        job_id = new_job(session, team, "running", 1)
        cancelled = new_job(session, team, "queued", 0)
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
