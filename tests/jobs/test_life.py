"""Random lives of jobs against a model of what may happen."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from hypothesis.strategies import floats, integers, sampled_from
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.artifacts.store import StoredFile
from core.database import transaction
from core.errors import Conflict, OutOfMemory, RunnerLost
from core.jobs.queue import (
    claim,
    expire_leases,
    finish_cancelled,
    finish_failed,
    finish_succeeded,
    release,
    renew,
    request_cancel,
    request_retry,
    set_progress,
)
from core.jobs.states import HELD, TRANSITIONS, JobStatus
from core.jobs.tables import JobEventRow, JobRow
from core.teams.tables import TeamRow
from tests.jobs.conftest import NewJob

Result = TypeVar("Result")

ATTEMPTS = 2
JOBS = 2


@dataclass
class Expected:
    """What is known of a job without asking the database."""

    status: JobStatus = "queued"
    attempt: int = 0
    allowed: int = ATTEMPTS
    progress: float = 0
    stale: list[int] = field(default_factory=list)

    def end(self, status: JobStatus) -> JobStatus:
        """The state an attempt's end leads to: a job being cancelled ends as cancelled, whatever else ended it."""
        self.status = "cancelled" if self.status == "cancelling" else status
        if self.status == "queued":
            self.progress = 0
        return self.status


class JobLife(RuleBasedStateMachine):
    sessions: sessionmaker[Session]
    new_job: NewJob

    def __init__(self) -> None:
        super().__init__()
        self.write(lambda session: session.execute(update(JobRow).values(queue="earlier examples")))
        self.jobs = {self.new_job(attempts=ATTEMPTS): Expected() for _ in range(JOBS)}

    def write(self, work: Callable[[Session], Result]) -> Result:
        with transaction(self.sessions) as session:
            return work(session)

    def pick(self, number: int) -> tuple[str, Expected]:
        return list(self.jobs.items())[number]

    @rule()
    def claims(self) -> None:
        claimed = self.write(lambda session: claim(session, queue="default", worker_id="w", lease_seconds=3600))
        waiting = [job for job, expected in self.jobs.items() if expected.status == "queued"]
        assert (claimed is None) == (not waiting)
        if claimed is not None:
            assert claimed.job_id in waiting
            expected = self.jobs[claimed.job_id]
            expected.status, expected.attempt, expected.progress = "running", expected.attempt + 1, 0
            assert claimed.attempt == expected.attempt

    @rule(number=integers(0, JOBS - 1), progress=floats(0, 1))
    def makes_progress(self, number: int, progress: float) -> None:
        job, expected = self.pick(number)
        held = expected.status in HELD
        assert self.write(lambda session: set_progress(session, job, expected.attempt, progress)) is held
        if held:
            expected.progress = max(expected.progress, progress)

    @rule(number=integers(0, JOBS - 1))
    def renews(self, number: int) -> None:
        job, expected = self.pick(number)
        answer = self.write(lambda session: renew(session, job, expected.attempt, 3600))
        assert answer == (expected.status if expected.status in HELD else "lost")

    @rule(number=integers(0, JOBS - 1), end=sampled_from(["succeeded", "failed", "lost", "released", "cancelled"]))
    def ends(self, number: int, end: str) -> None:
        job, expected = self.pick(number)
        attempt = expected.attempt
        ends: dict[str, Callable[[Session], JobStatus | None]] = {
            "succeeded": lambda session: finish_succeeded(
                session, job, attempt, metrics={}, report={}, files=[StoredFile("a", 1, "0")]
            ),
            "failed": lambda session: finish_failed(session, job, attempt, OutOfMemory("").problem()),
            "lost": lambda session: finish_failed(
                session, job, attempt, RunnerLost("").problem(), retry_delay_seconds=0
            ),
            "released": lambda session: release(session, job, attempt),
            "cancelled": lambda session: finish_cancelled(session, job, attempt),
        }
        result = self.write(ends[end])
        if expected.status not in HELD or (end == "cancelled" and expected.status != "cancelling"):
            assert result is None
            return
        leads_to: dict[str, JobStatus] = {"succeeded": "succeeded", "failed": "failed", "cancelled": "cancelled"}
        leads_to["released"] = "queued"
        leads_to["lost"] = "queued" if attempt < expected.allowed else "failed"
        if end == "released" and expected.status == "running":
            expected.allowed += 1
        if end == "succeeded" and expected.status == "running":
            expected.progress = 1
        assert result == expected.end(leads_to[end])

    @rule(number=integers(0, JOBS - 1))
    def loses_its_lease(self, number: int) -> None:
        job, expected = self.pick(number)
        past = update(JobRow).where(JobRow.id == job, JobRow.status.in_(HELD))
        self.write(lambda session: session.execute(past.values(lease_expires_at=func.to_timestamp(0))))
        lost = self.write(expire_leases)
        assert lost == ([job] if expected.status in HELD else [])
        if lost:
            expected.end("queued" if expected.attempt < expected.allowed else "failed")

    @rule(number=integers(0, JOBS - 1))
    def is_cancelled(self, number: int) -> None:
        job, expected = self.pick(number)
        try:
            status = self.write(lambda session: request_cancel(session, job))
        except Conflict:
            assert expected.status in ("succeeded", "failed")
            return
        after: dict[JobStatus, JobStatus] = {"queued": "cancelled", "running": "cancelling"}
        expected.status = after.get(expected.status, expected.status)
        assert status == expected.status

    @rule(number=integers(0, JOBS - 1))
    def is_retried(self, number: int) -> None:
        job, expected = self.pick(number)
        try:
            status = self.write(lambda session: request_retry(session, job, ATTEMPTS))
        except Conflict:
            assert expected.status in ("succeeded", "cancelling")
            return
        if expected.status in ("failed", "cancelled"):
            expected.status, expected.allowed, expected.progress = "queued", expected.attempt + ATTEMPTS, 0
        assert status == expected.status

    @invariant()
    def rows_and_counts_are_as_expected(self) -> None:
        with transaction(self.sessions) as session:
            for job, expected in self.jobs.items():
                row = session.scalars(select(JobRow).where(JobRow.id == job)).one()
                assert (row.status, row.attempt, row.progress) == (expected.status, expected.attempt, expected.progress)
                assert row.attempts_allowed == expected.allowed
                assert (row.finished_at is not None) == (row.status in ("succeeded", "failed", "cancelled"))
                events = session.scalars(
                    select(JobEventRow).where(JobEventRow.job_id == job).order_by(JobEventRow.sequence)
                ).all()
                assert [event.sequence for event in events] == list(range(1, row.last_event + 1))
                statuses = [event.data["status"] for event in events if event.type == "status"]
                assert statuses[0] == "queued" and statuses[-1] == row.status
                assert all(after in TRANSITIONS[before] for before, after in pairwise(statuses))
            held = select(func.count()).where(JobRow.status.in_(HELD))
            assert session.scalar(select(func.sum(TeamRow.running))) == session.scalar(held)


def test_no_life_of_a_job_leaves_the_ways_there_are(sessions: sessionmaker[Session], new_job: NewJob) -> None:
    class Life(JobLife):
        pass

    Life.sessions = sessions
    Life.new_job = staticmethod(new_job)
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            database=None,
        ),
    )
