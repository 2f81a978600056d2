"""Workers and the jobs they may claim: the room they have, what a job has outgrown, and what waits too long."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import seconds_from_now, transaction
from core.service.jobs import queue
from core.service.jobs.admission import Room, needs_columns, needs_of
from core.service.jobs.estimates.corrections import correct_needs
from core.service.jobs.fleet import count_ended_attempts
from core.service.jobs.tables import AttemptRow, JobEventRow, JobRow, WorkerRow
from tests.jobs.conftest import NewJob

Sessions = sessionmaker[Session]
GIB = 2**30
OUT_OF_MEMORY = {"code": "out_of_memory", "message": "memory ran out", "param": None, "retryable": False}


@pytest.fixture
def beat(sessions: Sessions) -> Callable[..., None]:
    """A worker's sign of life; sizes are GiB."""

    def tell(worker: str, device: float | None = None, memory: float | None = None, disk: float | None = None,
             **more: Any) -> None:  # fmt: skip
        with transaction(sessions) as session:
            queue.heartbeat(
                session, worker, queue="default", device="cuda", hostname="bed", pid=1,
                device_memory_bytes=_bytes(device), memory_bytes=_bytes(memory), disk_free_bytes=_bytes(disk), **more,
            )  # fmt: skip

    return tell


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else int(gib * GIB)


def need(
    sessions: Sessions, job: str, device: float | None = None, memory: float | None = None, disk: float | None = None
) -> None:
    room = Room(_bytes(device), _bytes(memory), _bytes(disk))
    with transaction(sessions) as session:
        session.execute(update(JobRow).where(JobRow.id == job).values(**needs_columns(room)))


def wait_long(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        session.execute(update(JobRow).where(JobRow.status == "queued").values(available_at=seconds_from_now(-601)))


def claim(sessions: Sessions, worker: str, **more: Any) -> str | None:
    with transaction(sessions) as session:
        claimed = queue.claim(session, queue="default", worker_id=worker, lease_seconds=60, **more)
    return None if claimed is None else claimed.job_id


def fail(sessions: Sessions, job: str, problem: dict[str, Any] = OUT_OF_MEMORY) -> str | None:
    with transaction(sessions) as session:
        attempt = session.scalars(select(JobRow.attempt).where(JobRow.id == job)).one()
        return queue.finish_failed(session, job, attempt, problem)


def logs(sessions: Sessions, job: str) -> list[str]:
    with transaction(sessions) as session:
        lines = select(JobEventRow.data).where(JobEventRow.job_id == job, JobEventRow.type == "log")
        return [data["message"] for data in session.scalars(lines)]


@pytest.mark.parametrize("figure", ["device", "memory", "disk"])
def test_a_worker_claims_the_best_of_what_it_has_room_for(
    figure: str, sessions: Sessions, new_job: NewJob, beat: Callable[..., None]
) -> None:
    beat("small", **{figure: 16})
    beat("large", **{figure: 80})
    jobs = [new_job() for _ in range(4)]
    for job, size in zip(jobs, (40, 16.001, 16, None), strict=True):
        need(sessions, job, **{figure: size})
    assert [claim(sessions, "small") for _ in range(3)] == [jobs[2], jobs[3], None]
    assert [claim(sessions, "large") for _ in range(3)] == [jobs[0], jobs[1], None]


def test_the_disk_counts_as_it_is_at_the_claim(sessions: Sessions, new_job: NewJob, beat: Callable[..., None]) -> None:
    beat("worker", disk=100)
    need(sessions, job := new_job(), disk=50)
    assert claim(sessions, "worker", disk_free_bytes=49 * GIB) is None
    beat("worker", disk=1)
    assert claim(sessions, "worker", disk_free_bytes=50 * GIB) == job


def test_no_worker_claims_what_another_has_room_for_and_nothing_is_stranded(
    sessions: Sessions, new_job: NewJob, beat: Callable[..., None]
) -> None:
    """Fleets and jobs at random, all of them overdue: whoever claims has room, or nobody has and it is the largest."""
    chance = random.Random(20)
    for _ in range(4):
        sizes = {
            f"worker_{number}": [
                chance.choice([None, 8, 16, 16, 80]),
                chance.choice([4, 32, 256]),
                chance.choice([9, 99]),
            ]
            for number in range(chance.randint(1, 5))
        }
        for worker, size in sizes.items():
            beat(worker, *size)
        jobs = {}
        for _ in range(25):
            job = new_job(priority=chance.randint(0, 2))
            jobs[job] = [
                chance.choice([None, 7.9, 16, 40, 200]),
                chance.choice([1, 31, 250, 300]),
                chance.choice([5, 200]),
            ]
            need(sessions, job, *jobs[job])
        wait_long(sessions)
        most = max((size[0] or 0, size[1]) for size in sizes.values())
        left, idle = set(jobs), set(sizes)
        while idle:
            worker = chance.choice(sorted(idle))
            taken = claim(sessions, worker)
            if taken is None:
                idle.remove(worker)
                continue
            left.remove(taken)
            able = {each for each, size in sizes.items() if _has_room(size, jobs[taken])}
            assert worker in able or (not able and (sizes[worker][0] or 0, sizes[worker][1]) == most), (
                sizes,
                jobs[taken],
            )
        assert not left, "nobody takes these"
        with transaction(sessions) as session:
            session.execute(text("DELETE FROM workers"))


def _has_room(has: list[Any], needs: list[Any]) -> bool:
    return all(one is None or other is None or one >= other for one, other in zip(has, needs, strict=True))


def test_the_largest_tries_what_nobody_has_room_for_only_after_a_long_wait_and_says_so(
    sessions: Sessions, new_job: NewJob, beat: Callable[..., None]
) -> None:
    beat("small", device=16, memory=64)
    beat("large", device=80, memory=64)
    need(sessions, job := new_job(), device=96)
    assert claim(sessions, "large") is None
    wait_long(sessions)
    assert claim(sessions, "small") is None
    beat("larger", device=141, memory=64)
    assert claim(sessions, "large") is None, "another has room, though it is not here"
    for state in ("paused", "draining"):
        beat("larger", device=141, memory=64, state=state)
        assert claim(sessions, "small") is None
    assert claim(sessions, "large", max_wait_seconds=700) is None
    assert claim(sessions, "large") == job
    [line] = logs(sessions, job)
    assert "103.1 GB of device memory" in line and "85.9 GB" in line and "600 s" in line


def test_silent_workers_are_waited_for_by_nobody(
    sessions: Sessions, new_job: NewJob, beat: Callable[..., None]
) -> None:
    beat("small", memory=16)
    beat("large", memory=80)
    need(sessions, job := new_job(), memory=40)
    wait_long(sessions)
    assert claim(sessions, "small") is None
    with transaction(sessions) as session:
        session.execute(update(WorkerRow).where(WorkerRow.id == "large").values(heartbeat_at=seconds_from_now(-61)))
    assert claim(sessions, "small") == job


def test_a_lack_of_memory_is_tried_again_once_on_each_larger_size(
    sessions: Sessions, new_job: NewJob, beat: Callable[..., None]
) -> None:
    for worker, device in (("a", 16), ("b", 16), ("c", 80), ("d", 141)):
        beat(worker, device=device, memory=64)
    job = new_job(attempts=1)
    assert claim(sessions, "a") == job
    assert fail(sessions, job) == "queued"
    wait_long(sessions)
    assert claim(sessions, "b") is None, "it has no more than the one before"
    assert claim(sessions, "c") == job
    assert fail(sessions, job) == "queued"
    assert [claim(sessions, worker) for worker in "abc"] == [None] * 3
    assert claim(sessions, "d") == job
    assert fail(sessions, job) == "failed", "there is none that is larger"
    with transaction(sessions) as session:
        error = session.scalars(select(JobRow.error).where(JobRow.id == job)).one()
        assert error is not None and error["code"] == "out_of_memory" and error["retryable"] is False
        queue.request_retry(session, job, 1)
    assert claim(sessions, "a") == job, "who asks for a retry asks for it anywhere"


def test_needs_of_jobs_that_wait_are_corrected_once_jobs_of_their_method_were_measured(
    sessions: Sessions, new_job: NewJob, team: str, beat: Callable[..., None]
) -> None:
    beat("worker", memory=16)
    need(sessions, job := new_job(), memory=40)
    needs = {"basis": {"formula": {"peak_memory_bytes": 1000, "peak_device_memory_bytes": None, "disk_bytes": 0}}}
    done = new_job(queue="elsewhere")

    def end(attempt: int, factor: float, outcome: str = "succeeded") -> None:
        with transaction(sessions) as session:
            session.execute(
                insert(AttemptRow).values(
                    job_id=done, attempt=attempt, team_id=team, queue="default", method="magnitude", worker_id="w",
                    ended_at=seconds_from_now(0), outcome=outcome, needs=needs,
                    measured={"peak_memory_bytes": 1000 * factor, "disk_bytes": 5},
                )
            )  # fmt: skip
        with transaction(sessions) as session:
            count_ended_attempts(session)
            correct_needs(session)

    end(1, 0.3)
    end(2, 0.2)
    for attempt in range(3, 9):
        end(attempt, 9.0, "failed")
    assert claim(sessions, "worker") is None, "two are too few"
    end(10, 0.4)
    with transaction(sessions) as session:
        row = session.scalars(select(JobRow).where(JobRow.id == job)).one()
        assert needs_of(row) == Room(None, 12 * GIB, None) and row.is_corrected
        other = session.scalars(select(JobRow).where(JobRow.id == done)).one()
        assert not other.is_corrected, "of another queue"
    assert claim(sessions, "worker") == job
