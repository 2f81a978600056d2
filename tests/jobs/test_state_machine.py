"""Random lives of jobs, under several workers and two teams, against a model of what may happen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test
from hypothesis.strategies import floats, integers, sampled_from
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import (
    append_event,
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
    set_stage,
)
from core.service.jobs.states import LEASED, TRANSITIONS
from core.service.jobs.tables import ArtifactFileRow, AttemptRow, JobEventRow, JobReportRow, JobRow
from core.service.teams.tables import AuditRow, TeamRow
from core.storage import StoredFile
from secateur_wire.errors import Conflict, GateMissed, OutOfMemory, RunnerLost
from secateur_wire.states import JobStatus
from tests.jobs.conftest import NewJob

Result = TypeVar("Result")

ATTEMPTS = 2
ARTIFACTS = {
    size: [StoredFile("model.safetensors", size - 20, "0"), StoredFile("config", 20, "0")] for size in (60, 100)
}

FIRST_JOBS = 4
MOST_JOBS = 6
WEIGHTS = (1.0, 3.0)
MOST_STORED = 99
"""Bytes of the first team: one small artifact fits, in place of another too, a large one never. The second has no
quota."""


@dataclass
class Expected:
    """Facts of a job that are known without asking the database."""

    team: int
    priority: int
    status: JobStatus = "queued"
    attempt: int = 0
    allowed: int = ATTEMPTS
    progress: float = 0
    outcomes: list[str | None] = field(default_factory=list)
    left_by: int | None = None
    """The attempt that metrics, report and artifact are of."""
    kept: int = 0
    """Bytes of the artifact."""

    def leave(self, size: int) -> None:
        """The newest attempt's metrics, report and artifact are the job's."""
        self.left_by, self.kept = self.attempt, size

    def let_go(self, status: JobStatus, outcome: str) -> JobStatus:
        """The state an attempt's end leads to: a job being cancelled ends as cancelled, whatever else ended it."""
        if self.status == "cancelling":
            status, outcome = "cancelled", "cancelled"
        self.status, self.outcomes[-1] = status, outcome
        if status == "queued":
            self.progress = 0
        return status


@dataclass(frozen=True)
class Token:
    """A claim as a worker got it. It goes on using it, whatever became of the job meanwhile."""

    job: str
    attempt: int
    worker: str


def left_by(token: Token, size: int) -> dict[str, Any]:
    """Metrics, report and artifact that name their attempt."""
    named = {"attempt": token.attempt}
    return {"metrics": named, "report": named, "files": ARTIFACTS[size]}


def require_rows_as_expected(session: Session, jobs: Mapping[str, Expected]) -> None:
    """One query for each table: it is asked after every step of many."""
    rows = {row.id: row for row in session.scalars(select(JobRow).where(JobRow.id.in_(jobs)))}
    attempts: dict[str, list[AttemptRow]] = {job: [] for job in jobs}
    events: dict[str, list[JobEventRow]] = {job: [] for job in jobs}
    for attempt in session.scalars(select(AttemptRow).where(AttemptRow.job_id.in_(jobs)).order_by(AttemptRow.attempt)):
        attempts[attempt.job_id].append(attempt)
    for event in session.scalars(
        select(JobEventRow).where(JobEventRow.job_id.in_(jobs)).order_by(JobEventRow.sequence)
    ):
        events[event.job_id].append(event)
    reports = select(JobReportRow).where(JobReportRow.job_id.in_(jobs))
    left = [(row.job_id, row.attempt, row.report) for row in session.scalars(reports)]
    by = {job: each.left_by for job, each in jobs.items() if each.left_by is not None}
    assert sorted(left, key=str) == sorted([(job, at, {"attempt": at}) for job, at in by.items()], key=str)
    noted = select(AuditRow.object_id, func.count()).where(AuditRow.object_id.in_(jobs))
    made = {row.object_id: row.count for row in session.execute(noted.group_by(AuditRow.object_id))}
    told = {job: sum(1 + (each.outcome is not None) for each in of_job) for job, of_job in attempts.items()}
    assert all(made.get(job, 0) == count for job, count in told.items()), "an entry for each beginning and each end"
    files = select(ArtifactFileRow.job_id, ArtifactFileRow.attempt, func.sum(ArtifactFileRow.bytes))
    files = files.where(ArtifactFileRow.job_id.in_(jobs)).group_by(ArtifactFileRow.job_id, ArtifactFileRow.attempt)
    kept = {(job, each.left_by, each.kept) for job, each in jobs.items() if each.kept}
    assert {tuple(found) for found in session.execute(files)} == kept
    for job, expected in jobs.items():
        assert rows[job].metrics == (None if expected.left_by is None else {"attempt": expected.left_by})
        _is_as_expected(rows[job], attempts[job], expected)
        _has_no_gaps_and_states_follow_one_another(rows[job], events[job], expected)


def _is_as_expected(row: JobRow, attempts: list[AttemptRow], expected: Expected) -> None:
    assert (row.status, row.attempt, row.progress) == (expected.status, expected.attempt, expected.progress)
    assert row.attempts_allowed == expected.allowed
    assert (row.finished_at is not None) == (row.status in ("succeeded", "failed", "cancelled"))
    assert (row.worker_id is not None) == (row.status in LEASED)
    assert [attempt.attempt for attempt in attempts] == list(range(1, row.attempt + 1))
    assert [attempt.outcome for attempt in attempts] == expected.outcomes
    assert all((attempt.ended_at is None) == (attempt.outcome is None) for attempt in attempts)


def _has_no_gaps_and_states_follow_one_another(row: JobRow, events: list[JobEventRow], expected: Expected) -> None:
    assert [event.sequence for event in events] == list(range(1, row.last_event + 1))
    statuses = [event.data["status"] for event in events if event.type == "status"]
    assert statuses[0] == "queued" and statuses[-1] == expected.status
    assert all(after in TRANSITIONS[before] for before, after in pairwise(statuses))


class JobLife(RuleBasedStateMachine):
    sessions: sessionmaker[Session]
    new_job: NewJob
    teams: tuple[str, str]

    tokens: Bundle[Token] = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Expected] = {}
        self.most_running: list[int | None] = [None, None]
        self.write(lambda session: session.execute(update(JobRow).values(queue="earlier examples")))
        for team, weight in enumerate(WEIGHTS):
            self.set_team(team, running=0, max_running=None, weight=weight, stored_bytes=0)
        self.set_team(0, max_stored_bytes=MOST_STORED)
        for number in range(FIRST_JOBS):
            self.is_submitted(number % 2, 0)

    def teardown(self) -> None:
        """The next example begins with free teams: what this one holds is nobody's."""
        ended = {"status": "cancelled", "lease_expires_at": None}
        self.write(
            lambda session: session.execute(update(JobRow).where(JobRow.lease_expires_at.is_not(None)).values(**ended))
        )

    def write(self, work: Callable[[Session], Result]) -> Result:
        with transaction(self.sessions) as session:
            return work(session)

    def set_team(self, team: int, **values: float | None) -> None:
        row = update(TeamRow).where(TeamRow.id == self.teams[team])
        self.write(lambda session: session.execute(row.values(**values)))

    def running(self, team: int) -> int:
        return sum(expected.team == team and expected.status in LEASED for expected in self.jobs.values())

    def stored(self, team: int) -> int:
        return sum(expected.kept for expected in self.jobs.values() if expected.team == team)

    def has_room(self, expected: Expected, size: int) -> bool:
        return expected.team != 0 or self.stored(0) - expected.kept + size <= MOST_STORED

    def next_job(self) -> str | None:
        """The one a claim must take: jobs are in order of age."""

        def may_run(team: int) -> bool:
            most = self.most_running[team]
            return most is None or self.running(team) < most

        waiting = [job for job, each in self.jobs.items() if each.status == "queued" and may_run(each.team)]
        return min(
            waiting,
            key=lambda job: (
                -self.jobs[job].priority,
                self.running(self.jobs[job].team) / WEIGHTS[self.jobs[job].team],
            ),
            default=None,
        )

    def holds(self, token: Token) -> bool:
        expected = self.jobs[token.job]
        return expected.attempt == token.attempt and expected.status in LEASED

    @rule(team=integers(0, 1), priority=integers(0, 1))
    def is_submitted(self, team: int, priority: int) -> None:
        if len(self.jobs) < MOST_JOBS:
            job = self.new_job(self.teams[team], attempts=ATTEMPTS, priority=priority)
            self.jobs[job] = Expected(team, priority)

    @rule(team=integers(0, 1), most=sampled_from([None, 0, 1, 2]))
    def quota_is_set(self, team: int, most: int | None) -> None:
        self.most_running[team] = most
        self.set_team(team, max_running=most)

    @rule(target=tokens, worker=sampled_from(["worker_1", "worker_2", "worker_3"]))
    def is_claimed(self, worker: str):  # type: ignore[no-untyped-def]
        best = self.next_job()
        claimed = self.write(lambda session: claim(session, queue="default", worker_id=worker, lease_seconds=3600))
        assert (None if claimed is None else claimed.job_id) == best
        if claimed is None:
            return multiple()
        expected = self.jobs[claimed.job_id]
        expected.status, expected.attempt, expected.progress = "running", expected.attempt + 1, 0
        expected.outcomes.append(None)
        assert claimed.attempt == expected.attempt
        return Token(claimed.job_id, claimed.attempt, worker)

    @rule(token=tokens, progress=floats(0, 1))
    def makes_progress(self, token: Token, progress: float) -> None:
        holds = self.holds(token)
        assert self.write(lambda session: set_progress(session, token.job, token.attempt, progress)) is holds
        if holds:
            expected = self.jobs[token.job]
            expected.progress = max(expected.progress, progress)

    @rule(token=tokens)
    def tells(self, token: Token) -> None:
        holds = self.holds(token)
        assert self.write(lambda session: set_stage(session, token.job, token.attempt, "prune")) is holds
        assert self.write(lambda session: append_event(session, token.job, token.attempt, "log", {})) is holds

    @rule(token=tokens)
    def renews(self, token: Token) -> None:
        answer = self.write(lambda session: renew(session, token.job, token.attempt, token.worker, 3600))
        assert answer == (self.jobs[token.job].status if self.holds(token) else "lost")

    @rule(token=tokens, size=sampled_from(sorted(ARTIFACTS)))
    def succeeds(self, token: Token, size: int) -> None:
        left = left_by(token, size)
        result = self.write(lambda session: finish_succeeded(session, token.job, token.attempt, **left))
        expected = self.jobs[token.job]
        if not self.holds(token):
            assert result is None
        elif expected.status == "running" and not self.has_room(expected, size):
            assert result == expected.let_go("failed", "failed")
        else:
            if expected.status == "running":
                expected.progress = 1
                expected.leave(size)
            assert result == expected.let_go("succeeded", "succeeded")

    @rule(token=tokens, problem=sampled_from([RunnerLost("").problem(), OutOfMemory("").problem()]))
    def fails(self, token: Token, problem: dict[str, Any]) -> None:
        result = self.write(
            lambda session: finish_failed(session, token.job, token.attempt, problem, retry_delay_seconds=0)
        )
        expected = self.jobs[token.job]
        if not self.holds(token):
            assert result is None
        else:
            again = problem["retryable"] and expected.attempt < expected.allowed
            assert result == expected.let_go("queued" if again else "failed", "failed")

    @rule(token=tokens, size=sampled_from(sorted(ARTIFACTS)))
    def misses_its_gate(self, token: Token, size: int) -> None:
        """It fails with its artifact, which is kept where there is room; its figures, unless they would be beside an
        earlier attempt's artifact.
        """
        left, problem = left_by(token, size), GateMissed("").problem()
        result = self.write(lambda session: finish_failed(session, token.job, token.attempt, problem, **left))
        expected = self.jobs[token.job]
        if not self.holds(token):
            assert result is None
        else:
            if expected.status == "running":
                if self.has_room(expected, size):
                    expected.leave(size)
                elif not expected.kept:
                    expected.leave(0)
            assert result == expected.let_go("failed", "failed")

    @rule(token=tokens)
    def stops_as_asked(self, token: Token) -> None:
        result = self.write(lambda session: finish_cancelled(session, token.job, token.attempt))
        expected = self.jobs[token.job]
        if self.holds(token) and expected.status == "cancelling":
            assert result == expected.let_go("cancelled", "cancelled")
        else:
            assert result is None

    @rule(token=tokens)
    def is_given_back(self, token: Token) -> None:
        """A worker drains."""
        result = self.write(lambda session: release(session, token.job, token.attempt))
        expected = self.jobs[token.job]
        if not self.holds(token):
            assert result is None
        else:
            expected.allowed += expected.status == "running"
            assert result == expected.let_go("queued", "released")

    @rule(token=tokens)
    def loses_its_lease(self, token: Token) -> None:
        past = update(JobRow).where(JobRow.id == token.job, JobRow.status.in_(LEASED))
        self.write(lambda session: session.execute(past.values(lease_expires_at=func.to_timestamp(0))))
        lost = self.write(expire_leases)
        expected = self.jobs[token.job]
        assert lost == ([token.job] if expected.status in LEASED else [])
        if lost:
            expected.let_go("queued" if expected.attempt < expected.allowed else "failed", "lost")

    @rule(number=integers(0, MOST_JOBS - 1))
    def is_cancelled(self, number: int) -> None:
        if number >= len(self.jobs):
            return
        job, expected = list(self.jobs.items())[number]
        try:
            answer = self.write(lambda session: request_cancel(session, job))
        except Conflict:
            assert expected.status in ("succeeded", "failed")
            return
        after: dict[JobStatus, JobStatus] = {"queued": "cancelled", "running": "cancelling"}
        assert answer == (after.get(expected.status, expected.status), expected.status in after)
        expected.status = answer.status

    @rule(number=integers(0, MOST_JOBS - 1))
    def is_retried(self, number: int) -> None:
        if number >= len(self.jobs):
            return
        job, expected = list(self.jobs.items())[number]
        try:
            answer = self.write(lambda session: request_retry(session, job, ATTEMPTS))
        except Conflict:
            assert expected.status in ("succeeded", "cancelling")
            return
        changed = expected.status in ("failed", "cancelled")
        if changed:
            expected.status, expected.allowed, expected.progress = "queued", expected.attempt + ATTEMPTS, 0
        assert answer == (expected.status, changed)

    @invariant()
    def rows_are_as_expected(self) -> None:
        self.write(lambda session: require_rows_as_expected(session, self.jobs))

    @invariant()
    def counts_of_teams_are_what_they_count(self) -> None:
        files = (
            select(JobRow.team_id, func.sum(ArtifactFileRow.bytes).label("bytes"))
            .join_from(ArtifactFileRow, JobRow, JobRow.id == ArtifactFileRow.job_id)
            .where(JobRow.id.in_(self.jobs))
            .group_by(JobRow.team_id)
        )
        with transaction(self.sessions) as session:
            stored = {row.team_id: row.bytes for row in session.execute(files)}
            rows = {row.id: row for row in session.scalars(select(TeamRow))}
        for number, team in enumerate(self.teams):
            row = rows[team]
            assert (row.running, row.stored_bytes) == (self.running(number), self.stored(number))
            assert stored.get(team, 0) == row.stored_bytes


@pytest.mark.parametrize("examples", [10, pytest.param(50, marks=pytest.mark.nightly)])
def test_no_life_of_a_job_leaves_the_ways_there_are(
    sessions: sessionmaker[Session], new_job: NewJob, team: str, other_team: str, examples: int
) -> None:
    class Life(JobLife):
        pass

    Life.sessions = sessions
    Life.new_job = staticmethod(new_job)
    Life.teams = (team, other_team)
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            database=None,
        ),
    )
