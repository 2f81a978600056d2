"""What is kept of each attempt, whatever its job comes to."""

from collections.abc import Callable

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import finish_failed, finish_succeeded, release
from core.service.jobs.tables import AttemptRow, JobRow
from secateur_wire.errors import OutOfMemory
from tests.jobs.conftest import NewJob
from tests.jobs.test_quotas import take

Sessions = sessionmaker[Session]
ENDS: dict[str, Callable[[Session, str], object]] = {
    "succeeded": lambda session, job: finish_succeeded(
        session, job, 1, metrics={}, report={}, files=[], stages={"prune": 2.5}, measured={"seconds": 3}
    ),
    "failed": lambda session, job: finish_failed(session, job, 1, OutOfMemory("").problem(), stages={"prune": 2.5}),
    "released": lambda session, job: release(session, job, 1, stages={"prune": 2.5}),
}


@pytest.mark.parametrize("outcome", ENDS)
def test_an_attempt_is_kept_as_a_record(sessions: Sessions, new_job: NewJob, team: str, outcome: str) -> None:
    job = new_job()
    with transaction(sessions) as session:
        session.execute(update(JobRow).values(estimate={"seconds": 4}))
    take(sessions)
    with transaction(sessions) as session:
        row = session.scalars(select(AttemptRow)).one()
        assert (row.job_id, row.attempt, row.team_id, row.worker_id) == (job, 1, team, "worker_1")
        assert (row.queue, row.method, row.needs) == ("default", "magnitude", {"seconds": 4})
        assert (row.ended_at, row.outcome) == (None, None)
        ENDS[outcome](session, job)
        session.refresh(row)
        assert row.outcome == outcome and row.ended_at is not None and row.stages == {"prune": 2.5}
        assert row.error_code == ("out_of_memory" if outcome == "failed" else None)
        assert row.measured == ({"seconds": 3} if outcome == "succeeded" else None)
