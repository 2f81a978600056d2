"""Jobs in the queue, without the API."""

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.database import new_id, transaction
from core.service.jobs.queue import submitted
from core.service.jobs.tables import JobRow

NewJob = Callable[..., str]


@pytest.fixture
def new_job(sessions: sessionmaker[Session], team: str) -> NewJob:
    """Queues a job (of the team, unless told otherwise) and returns its id."""

    def queue_job(team_id: str = team, *, priority: int = 0, queue: str = "default", attempts: int = 3) -> str:
        row = JobRow(
            id=new_id("job"),
            team_id=team_id,
            attempts_allowed=attempts,
            body={},
            sources={
                "model": {"kind": "folder", "name": "tiny", "path": "/models/tiny", "revision": "sha256:0"},
                "calibration": None,
                "evaluation": [],
            },
            model="tiny",
            model_revision="sha256:0",
            method="magnitude",
            queue=queue,
            priority=priority,
            labels={},
        )
        with transaction(sessions) as session:
            submitted(session, row)
        return row.id

    return queue_job
