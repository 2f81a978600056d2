"""Everything at once on a few jobs: nothing deadlocks, and what is counted stays true."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import (
    JobsLocked,
    append_event,
    claim,
    expire_leases,
    finish_failed,
    finish_succeeded,
    hints_due,
    mark_dispatched,
    release,
    remove_old_events,
    request_cancel,
    request_retry,
    set_progress,
)
from core.service.jobs.quotas import require_room_in_queue
from core.service.jobs.states import LEASED, TRANSITIONS
from core.service.jobs.tables import ArtifactFileRow, AttemptRow, JobEventRow, JobRow
from core.service.teams.tables import TeamRow
from core.storage import StoredFile
from secateur_wire.errors import Conflict, QuotaExceeded, RunnerLost
from tests.jobs.conftest import NewJob
from tests.worker.conftest import eventually

Sessions = sessionmaker[Session]
FILES = [StoredFile("a", 10, "0")]


def test_an_event_waits_for_the_one_before_it_and_takes_the_next_number(sessions: Sessions, new_job: NewJob) -> None:
    """A reader that goes on after the last number it saw misses none that is committed later."""
    job = new_job()
    with transaction(sessions) as session:
        assert claim(session, queue="default", worker_id="worker_1", lease_seconds=60)

    def tell(message: str) -> None:
        with transaction(sessions) as session:
            append_event(session, job, 1, "log", {"message": message})

    with ThreadPoolExecutor(1) as pool:
        with transaction(sessions) as session:
            append_event(session, job, 1, "log", {"message": "first"})
            second = pool.submit(tell, "second")
            eventually(lambda: session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))
        second.result(60)
    told = select(JobEventRow.sequence, JobEventRow.data).where(JobEventRow.type == "log")
    with transaction(sessions) as session:
        found = {number: data["message"] for number, data in session.execute(told)}
    assert found == {3: "first", 4: "second"}


@pytest.mark.parametrize("seconds", [2, pytest.param(20, marks=pytest.mark.nightly)])
def test_all_that_happens_to_jobs_may_happen_at_once(
    sessions: Sessions, new_job: NewJob, team: str, other_team: str, seconds: float
) -> None:
    jobs = [
        new_job(each, priority=number % 2, queue=queue)
        for number in range(6)
        for each in (team, other_team)
        for queue in ("default", "large")
    ]
    with transaction(sessions) as session:
        session.execute(update(TeamRow).values(max_running=2, max_queued=50, max_stored_bytes=60))
    done: Counter[str] = Counter()
    began = time.monotonic()

    def goes_on() -> bool:
        """Return whether the time is not over, or somebody has had no turn yet on a busy machine."""
        passed = time.monotonic() - began
        return passed < seconds or (passed < 60 and not all(done[who] for who in ("worker", "user", "dispatcher")))

    def repeat(who: str, number: int, work: Callable[[random.Random], bool]) -> Callable[[], None]:
        def run() -> None:
            chance = random.Random(f"{who} {number}")
            while goes_on():
                done[who] += work(chance)

        return run

    def worker(chance: random.Random) -> bool:
        try:
            with transaction(sessions) as session:
                queue = chance.choice(["default", "large"])
                lease = chance.choice([-1, 0.5])  # who leaves a job soon lets others go on: quotas are of two
                claimed = claim(session, queue=queue, worker_id="worker_1", lease_seconds=lease)
        except JobsLocked:
            return False
        if claimed is None:
            return False
        job, attempt = claimed.job_id, claimed.attempt
        with transaction(sessions) as session:
            set_progress(session, job, attempt, 0.5)
        with transaction(sessions) as session:
            end = chance.randrange(4)
            if end == 0:
                finish_succeeded(session, job, attempt, metrics={}, report={}, files=FILES)
            elif end == 1:
                finish_failed(session, job, attempt, RunnerLost("").problem(), files=FILES, retry_delay_seconds=0)
            elif end == 2:
                release(session, job, attempt)
        return True

    def user(chance: random.Random) -> bool:
        if len(jobs) < 200 and chance.random() < 0.2:  # there is always one that somebody has a turn with
            jobs.append(new_job(chance.choice([team, other_team])))
        job = chance.choice(jobs)
        try:
            with transaction(sessions) as session:
                if chance.random() < 0.5:
                    return request_cancel(session, job).changed
                changed = request_retry(session, job, 2).changed
                if changed:
                    owner = session.scalars(select(JobRow.team_id).where(JobRow.id == job)).one()
                    require_room_in_queue(session, owner, adding=0)
                return changed
        except (Conflict, QuotaExceeded):
            return False

    def dispatcher(chance: random.Random) -> bool:
        with transaction(sessions) as session:
            expired = expire_leases(session)
        with transaction(sessions) as session:
            mark_dispatched(session, [job for job, _ in hints_due(session, 0)])
        with transaction(sessions) as session:
            remove_old_events(session, 1)
        return bool(expired)

    runs = [repeat("worker", number, worker) for number in range(6)]
    runs += [repeat("user", number, user) for number in range(3)]
    runs += [repeat("dispatcher", number, dispatcher) for number in range(2)]
    with ThreadPoolExecutor(len(runs)) as pool:
        for future in [pool.submit(run) for run in runs]:
            future.result()  # a deadlock is an error of one of them
    assert all(done[who] for who in ("worker", "user", "dispatcher")), done
    _nothing_is_out_of_step(sessions, jobs)


def _nothing_is_out_of_step(sessions: Sessions, jobs: list[str]) -> None:
    with transaction(sessions) as session:
        for row in session.scalars(select(TeamRow)):
            held = select(func.count()).where(JobRow.team_id == row.id, JobRow.status.in_(LEASED))
            assert row.running == session.scalar(held)
            stored = select(func.coalesce(func.sum(ArtifactFileRow.bytes), 0)).join_from(
                ArtifactFileRow, JobRow, JobRow.id == ArtifactFileRow.job_id
            )
            assert row.stored_bytes == session.scalar(stored.where(JobRow.team_id == row.id)) <= 60
        for job in jobs:
            row = session.scalars(select(JobRow).where(JobRow.id == job)).one()
            events = session.scalars(
                select(JobEventRow).where(JobEventRow.job_id == job).order_by(JobEventRow.sequence)
            ).all()
            assert [event.sequence for event in events] == list(range(1, row.last_event + 1))
            statuses = [event.data["status"] for event in events if event.type == "status"]
            assert statuses[-1] == row.status
            assert all(after in TRANSITIONS[before] for before, after in pairwise(statuses))
            attempts = session.scalars(
                select(AttemptRow.outcome).where(AttemptRow.job_id == job).order_by(AttemptRow.attempt)
            ).all()
            assert len(attempts) == row.attempt == statuses.count("running")
            assert [outcome for outcome in attempts if outcome is None] == [None] * (row.status in LEASED)


def test_a_worker_that_freezes_in_its_turn_loses_it(
    sessions: Sessions, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim is undone, and the queue goes on: the next worker gets that job."""
    turn = "core.service.jobs.queue.claims._LONGEST_TURN"
    monkeypatch.setattr(turn, "3s")
    job = new_job()
    frozen = threading.Event()
    thawed = threading.Event()

    def freeze() -> str | None:
        try:
            with transaction(sessions) as session:
                claimed = claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
                assert claimed is not None and claimed.job_id == job
                frozen.set()
                thawed.wait(120)
                session.execute(text("SELECT 1"))
        except DBAPIError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(1) as pool:
        freezing = pool.submit(freeze)
        assert frozen.wait(60)
        monkeypatch.setattr(turn, "60s")  # of the next, which does not freeze
        with transaction(sessions) as session:
            claimed = claim(session, queue="default", worker_id="worker_2", lease_seconds=60)
        thawed.set()
        assert "idle-in-transaction" in (freezing.result() or "")
    assert claimed is not None and (claimed.job_id, claimed.attempt) == (job, 1)
