"""Progress curves of past jobs: where in a job their time went, from the events that its workers wrote."""

from typing import Any

import pytest
from sqlalchemy import insert, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import seconds_from_now, transaction
from core.service.jobs.progress_curves import progress_curves
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.schemas import JobBody
from core.service.jobs.service import submit
from core.service.jobs.tables import AttemptRow, JobEventRow, JobRow
from core.settings import Settings
from core.storage import Store


def test_jobs_with_the_same_stages_tell_where_their_time_went(
    sessions: sessionmaker[Session], team: str, job_body: dict[str, Any], store: Store, settings: Settings
) -> None:
    recovery = {"method": "finetune", "steps": 2, "batch_size": 1, "dataset": job_body["calibration"]["dataset"]}

    def submitted(session: Session, **more: Any) -> str:
        return submit(RequestContext(session, team, store, settings), JobBody.model_validate(job_body | more)).id

    def ended(session: Session, job: str, began: dict[tuple[float, float], float]) -> None:
        """Write the parts of a job that began 100 s ago, at these seconds after the first one, and ended now."""
        session.execute(update(JobRow).where(JobRow.id == job).values(attempt=1))
        needs = {"basis": {"formula": {"seconds": 50.0}}}
        session.execute(
            insert(AttemptRow).values(
                job_id=job, attempt=1, team_id=team, queue="default", method="wanda", worker_id="worker_1",
                ended_at=seconds_from_now(0), outcome="succeeded", needs=needs, measured={"seconds": 100.0},
            )
        )  # fmt: skip
        events = [
            {"part": list(part), "progress": part[0], "at": at + more} for part, at in began.items() for more in (0, 1)
        ]
        for number, event in enumerate(events, 100):
            at = event.pop("at")
            session.execute(
                insert(JobEventRow).values(
                    job_id=job, sequence=number, type="progress", attempt=1, data=event,
                    created_at=seconds_from_now(at - 100),
                )
            )  # fmt: skip

    with transaction(sessions) as session:
        own = submitted(session)
        wanted: dict[str, Any] = {"queue": "default", "method": "wanda", "formula_seconds": 50.0}
        assert progress_curves(session, job_id=own, **wanted) == []
        ended(session, submitted(session), {(0.0, 0.8): 0.0, (0.8, 0.96): 20.0, (0.96, 0.98): 30.0})
        ended(session, submitted(session, recovery=recovery), {(0.0, 0.35): 0.0, (0.35, 1.0): 90.0})
        (curve,) = progress_curves(session, job_id=own, **wanted)
        trained = submitted(session, recovery=recovery)
        (other,) = progress_curves(session, job_id=trained, **wanted)
        assert progress_curves(session, job_id=own, **{**wanted, "method": "sparsegpt"}) == []
    assert [place for place, _ in curve] == [0.0, 0.8, 0.96, 1.0]
    assert [share for _, share in curve] == pytest.approx([0.0, 0.2, 0.3, 1.0], abs=0.01)
    assert [place for place, _ in other] == [0.0, 0.35, 1.0] and other[1][1] == pytest.approx(0.9, abs=0.01)
