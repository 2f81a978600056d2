"""Queue of requests for the samples: a worker takes one under a lease, and writes the result."""

from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.service.samples.tables import SampleRequestRow
from secateur_wire.errors import Unavailable
from secateur_wire.plans import Goal
from secateur_wire.problems import StoredProblem, summary_of_problem

MOST_ATTEMPTS = 2
"""Maximum number of workers that take a request which ends without an answer."""


@dataclass(frozen=True)
class ClaimedSample:
    """Request that a worker has taken; `attempt` goes with every later write."""

    id: str
    attempt: int
    team_id: str
    goal: Goal | None


def claim(session: Session, *, worker_id: str, lease_seconds: float) -> ClaimedSample | None:
    """Take the oldest request that waits, or whose worker stopped renewing; None where there is none.

    A request that workers lost too often fails.
    """
    is_lost = and_(SampleRequestRow.state == "running", SampleRequestRow.lease_expires_at < func.clock_timestamp())
    row = session.scalars(
        select(SampleRequestRow)
        .where(or_(SampleRequestRow.state == "waiting", is_lost))
        .order_by(SampleRequestRow.created_at, SampleRequestRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    claimed = ClaimedSample(row.id, row.attempts + 1, row.team_id, cast(Goal | None, row.goal))
    if row.attempts >= MOST_ATTEMPTS:
        lost = Unavailable(f"{row.attempts} workers that fetched the samples ended before they had them")
        row.state, row.lease_expires_at, row.error = "failed", None, summary_of_problem(lost.problem())
        row.finished_at = func.clock_timestamp()
        return None
    row.state, row.attempts, row.worker_id = "running", claimed.attempt, worker_id
    row.started_at, row.lease_expires_at = func.clock_timestamp(), seconds_from_now(lease_seconds)
    session.flush()
    return claimed


def renew(session: Session, claimed: ClaimedSample, lease_seconds: float) -> bool:
    """Renew the lease of a request; False where another attempt holds it, or it is over."""
    return _write(session, claimed, {"lease_expires_at": seconds_from_now(lease_seconds)})


def note_step(session: Session, claimed: ClaimedSample, step: str) -> bool:
    """Record the current step; False as in `renew`."""
    return _write(session, claimed, {"step": step})


def release(session: Session, claimed: ClaimedSample) -> bool:
    """Return a request to the queue. This attempt does not count."""
    values = {"state": "waiting", "worker_id": None, "lease_expires_at": None, "attempts": claimed.attempt - 1}
    return _write(session, claimed, values)


def succeed(session: Session, claimed: ClaimedSample, job_id: str | None) -> bool:
    return _end(session, claimed, {"state": "ready", "job_id": job_id})


def fail(session: Session, claimed: ClaimedSample, problem: StoredProblem) -> bool:
    return _end(session, claimed, {"state": "failed", "error": summary_of_problem(problem)})


def _end(session: Session, claimed: ClaimedSample, values: dict[str, Any]) -> bool:
    return _write(session, claimed, values | {"lease_expires_at": None, "finished_at": func.clock_timestamp()})


def _write(session: Session, claimed: ClaimedSample, values: dict[str, Any]) -> bool:
    written = session.scalar(
        update(SampleRequestRow)
        .where(
            SampleRequestRow.id == claimed.id,
            SampleRequestRow.attempts == claimed.attempt,
            SampleRequestRow.state == "running",
        )
        .values(**values)
        .returning(SampleRequestRow.id)
        .execution_options(synchronize_session=False)
    )
    return written is not None
