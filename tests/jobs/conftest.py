"""Jobs in the queue, without the API."""

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import submitted
from tests.job_rows import job_row

NewJob = Callable[..., str]


@pytest.fixture
def new_job(sessions: sessionmaker[Session], team: str) -> NewJob:
    """Queues a job (of the team, unless told otherwise) and returns its id."""

    def queue_job(team_id: str = team, *, priority: int = 0, queue: str = "default", attempts: int = 3) -> str:
        row = job_row(team_id, attempts_allowed=attempts, queue=queue, priority=priority)
        with transaction(sessions) as session:
            submitted(session, row)
        return row.id

    return queue_job
