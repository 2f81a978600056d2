import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import Claim, JobsLocked, claim, expire_leases, finish_succeeded, renew
from core.service.jobs.tables import JobRow
from core.service.teams.bootstrap import create_team
from core.service.teams.tables import TeamRow
from core.settings import Settings
from tests.jobs.conftest import NewJob
from worker.tasks import claim_next

Sessions = sessionmaker[Session]


def take(sessions: Sessions, queue: str = "default", worker: str = "worker_1") -> Claim | None:
    with transaction(sessions) as session:
        return claim(session, queue=queue, worker_id=worker, lease_seconds=60)


def taken(sessions: Sessions) -> str:
    claimed = take(sessions)
    assert claimed is not None
    return claimed.job_id


def running(sessions: Sessions, team: str) -> int:
    with transaction(sessions) as session:
        return session.scalars(select(TeamRow.running).where(TeamRow.id == team)).one()


def test_racing_workers_never_claim_a_job_twice(
    sessions: Sessions, new_job: NewJob, team: str, other_team: str
) -> None:
    jobs = [new_job(team if number % 2 else other_team) for number in range(40)]
    start = threading.Barrier(8)

    def work(worker: int) -> list[str]:
        start.wait()
        claims = []
        while (claimed := take(sessions, worker=f"worker_{worker}")) is not None:
            claims.append(claimed.job_id)
        return claims

    with ThreadPoolExecutor(8) as pool:
        claimed = [job for claims in pool.map(work, range(8)) for job in claims]
    assert Counter(claimed) == Counter(jobs)
    assert running(sessions, team) == running(sessions, other_team) == 20


def test_racing_workers_respect_the_quota(sessions: Sessions, new_job: NewJob, team: str) -> None:
    for _ in range(10):
        new_job()
    with transaction(sessions) as session:
        session.execute(update(TeamRow).values(max_running=3))
    start = threading.Barrier(6)

    def work(worker: int) -> bool:
        start.wait()
        return take(sessions, worker=f"worker_{worker}") is not None

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) == 3
    assert running(sessions, team) == 3


def test_priority_goes_before_fairness_and_fairness_before_age(
    sessions: Sessions, new_job: NewJob, team: str, other_team: str
) -> None:
    first, second = new_job(team), new_job(team)
    other = new_job(other_team)
    urgent, urgent_too = new_job(team, priority=5), new_job(team, priority=5)
    assert [taken(sessions) for _ in range(5)] == [urgent, urgent_too, other, first, second]


def test_racing_workers_share_fairly_between_teams(
    sessions: Sessions, new_job: NewJob, team: str, other_team: str
) -> None:
    """Two workers at once get a job of each team, though all of one team's are older."""
    for _ in range(5):
        for _ in range(2):
            new_job(team)
        new_job(other_team)
        start = threading.Barrier(2)

        def work(worker: int, start: threading.Barrier = start) -> Claim | None:
            start.wait()
            return take(sessions, worker=f"worker_{worker}")

        with ThreadPoolExecutor(2) as pool:
            claims = list(pool.map(work, range(2)))
        assert {claimed.team_id for claimed in claims if claimed} == {team, other_team}
        with transaction(sessions) as session:
            session.execute(update(TeamRow).values(running=0))
            session.execute(update(JobRow).values(status="cancelled", lease_expires_at=None))


def test_a_job_is_held_for_as_long_as_was_asked(sessions: Sessions, new_job: NewJob) -> None:
    job = new_job()

    def held_until(take_or_renew: Callable[[Session], object]) -> tuple[datetime, datetime, datetime]:
        """The database's time before and after, and when the lease runs out."""
        clock = select(func.clock_timestamp())
        with transaction(sessions) as session:
            before = session.scalars(clock).one()
            take_or_renew(session)
            after = session.scalars(clock).one()
            row = session.scalars(select(JobRow).where(JobRow.id == job)).one()
            assert row.lease_expires_at is not None
            return before, row.lease_expires_at, after

    calls: list[tuple[int, Callable[[Session], object]]] = [
        (60, lambda session: claim(session, queue="default", worker_id="worker_1", lease_seconds=60)),
        (20, lambda session: renew(session, job, 1, "worker_1", 20)),
    ]
    for seconds, call in calls:
        before, until, after = held_until(call)
        assert before <= until - timedelta(seconds=seconds) <= after


def test_a_locked_job_is_skipped_not_waited_for(sessions: Sessions, new_job: NewJob) -> None:
    locked, free = new_job(), new_job()
    with transaction(sessions) as session:
        session.execute(select(JobRow).where(JobRow.id == locked).with_for_update())
        assert taken(sessions) == free


@pytest.fixture
def held_team(sessions: Sessions, team: str) -> Iterator[Session]:
    """The session of another transaction that holds the team's row, until the test commits it or ends."""
    with transaction(sessions) as session:
        session.execute(select(TeamRow).where(TeamRow.id == team).with_for_update(key_share=True))
        yield session


def test_a_team_whose_row_is_held_is_passed_over_and_the_next_one_served(
    sessions: Sessions, new_job: NewJob, team: str, other_team: str, held_team: Session
) -> None:
    """Others are served in the usual order; the held team again, with all it was due, when its row is free."""
    urgent = new_job(team, priority=9)
    with transaction(sessions) as session:
        third_team = create_team(session, "third")
        session.execute(update(TeamRow).where(TeamRow.id == third_team).values(running=1))
    third, other = new_job(third_team), new_job(other_team)
    second = new_job(third_team, priority=1)
    assert [taken(sessions) for _ in range(3)] == [second, other, third]
    with pytest.raises(JobsLocked):
        take(sessions)
    held_team.commit()
    assert taken(sessions) == urgent
    assert take(sessions) is None
    assert running(sessions, team) == running(sessions, other_team) == 1


def test_leases_of_other_teams_run_out_while_one_teams_row_is_held(
    sessions: Sessions, new_job: NewJob, team: str, other_team: str
) -> None:
    held, other = new_job(team), new_job(other_team)
    assert {taken(sessions), taken(sessions)} == {held, other}
    with transaction(sessions) as session:
        session.execute(update(JobRow).values(lease_expires_at=func.clock_timestamp()))
    with transaction(sessions) as holder:
        holder.execute(select(TeamRow).where(TeamRow.id == team).with_for_update(key_share=True))
        with transaction(sessions) as session:
            assert expire_leases(session) == [other]
    with transaction(sessions) as session:
        assert expire_leases(session) == [held]


def test_a_worker_asks_again_where_its_claim_was_held_up(
    sessions: Sessions, settings: Settings, new_job: NewJob, held_team: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job()
    assert claim_next(settings, sessions) is None
    monkeypatch.setattr("worker.tasks.time.sleep", lambda seconds: held_team.commit())
    claimed = claim_next(settings, sessions)
    assert claimed is not None and claimed.job_id == job


def test_a_lease_is_renewed_only_by_its_attempt(sessions: Sessions, new_job: NewJob) -> None:
    job = new_job()
    take(sessions)
    with transaction(sessions) as session:
        assert renew(session, job, 1, "worker_1", 60) == "running"
        assert renew(session, job, 2, "worker_1", 60) == "lost"
        assert renew(session, job, 1, "worker_of_a_lost_moment", 60) == "lost", "it claimed what the database forgot"
        assert renew(session, "job_unknown", 1, "worker_1", 60) == "lost"
        assert finish_succeeded(session, job, 1, metrics={}, report={}, files=[]) == "succeeded"
        assert renew(session, job, 1, "worker_1", 60) == "lost"
