"""SIGTERM: a worker finishes the block it is in, gives the job back and leaves; the next one goes on from there."""

import signal
from typing import Any

from sqlalchemy import select

from core.database import transaction
from core.service.jobs.tables import AttemptRow
from core.settings import Settings
from tests.worker.conftest import Queue, SpawnWorker, eventually, is_alive, runner_of, saved_blocks


def in_block(jobs: Queue, job_id: str, block: int) -> bool:
    return f"in block {block}" in jobs.logs(job_id)


def outcomes(jobs: Queue, job_id: str) -> list[str | None]:
    with transaction(jobs.sessions) as session:
        attempts = session.scalars(select(AttemptRow).where(AttemptRow.job_id == job_id).order_by(AttemptRow.attempt))
        return [attempt.outcome for attempt in attempts]


def test_the_block_is_finished_and_the_next_worker_goes_on_after_it(
    jobs: Queue, job_body: dict[str, Any], settings: Settings, spawn_worker: SpawnWorker
) -> None:
    job_id = jobs.submit(job_body)
    worker = spawn_worker(blocks=20, block_seconds=600, last_seconds=0.5)
    eventually(lambda: in_block(jobs, job_id, 1))
    runner = runner_of(worker.pid, "tests.worker.stand_in_runner")
    assert runner is not None
    worker.send(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert not is_alive(runner)
    row = jobs.row(job_id)
    assert row.status == "queued" and row.attempts_allowed - row.attempt == 3, "the attempt counted"
    assert jobs.events(job_id)[-1].data["reason"] == "released"
    assert saved_blocks(settings, job_id) == [1]
    assert spawn_worker(blocks=3, block_seconds=0.0).wait(60) == 0
    assert jobs.job(job_id).status == "succeeded" and jobs.job(job_id).attempt == 2
    assert "continuing after block 1" in jobs.logs(job_id)
    assert outcomes(jobs, job_id) == ["released", "succeeded"]


def test_a_block_that_takes_longer_than_the_drain_is_dropped(
    jobs: Queue, job_body: dict[str, Any], settings: Settings, spawn_worker: SpawnWorker
) -> None:
    job_id = jobs.submit(job_body)
    worker = spawn_worker(settings.model_copy(update={"drain_seconds": 1.0}), blocks=20, block_seconds=600)
    eventually(lambda: in_block(jobs, job_id, 1))
    runner = runner_of(worker.pid, "tests.worker.stand_in_runner")
    worker.send(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert runner is not None and not is_alive(runner)
    assert jobs.row(job_id).status == "queued" and saved_blocks(settings, job_id) == []


def test_a_task_without_blocks_is_ended_at_once(
    jobs: Queue, job_body: dict[str, Any], start_worker: Any, settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    worker = start_worker(settings.model_copy(update={"drain_seconds": 600.0}), hang_in="measure")
    pids = jobs.runner_pids(job_id)
    worker.stop.set()
    assert worker.result(60) == "queued"
    eventually(lambda: not any(map(is_alive, pids)))
    assert outcomes(jobs, job_id) == ["released"]
