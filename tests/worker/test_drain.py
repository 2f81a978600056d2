"""SIGTERM: a worker finishes the block it is in, gives the job back and leaves; the next one goes on from there."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import load_file
from sqlalchemy import select

from core.artifacts.store import Store, artifact_prefix
from core.database import transaction
from core.jobs import queue
from core.jobs.tables import AttemptRow
from core.settings import Settings
from tests.runner.models import register_layers
from tests.worker.conftest import (
    Queue,
    SpawnWorker,
    StartPart,
    eventually,
    is_alive,
    is_registered,
    runner_of,
    worker_state,
)


def in_block(jobs: Queue, job_id: str, block: int) -> bool:
    return f"in block {block}" in jobs.logs(job_id)


def outcomes(jobs: Queue, job_id: str) -> list[str | None]:
    with transaction(jobs.sessions) as session:
        attempts = session.scalars(select(AttemptRow).where(AttemptRow.job_id == job_id).order_by(AttemptRow.attempt))
        return [attempt.outcome for attempt in attempts]


def boundaries(settings: Settings, job_id: str) -> list[str]:
    return sorted(folder.name for folder in (settings.work_root / job_id / "attempt-1").glob("boundary-*"))


def test_the_block_is_finished_and_the_next_worker_goes_on_after_it(
    jobs: Queue, job_body: dict[str, Any], settings: Settings, spawn_worker: SpawnWorker
) -> None:
    job_id = jobs.submit(job_body)
    worker = spawn_worker(blocks=20, block_seconds=60, last_seconds=0.5)
    eventually(lambda: in_block(jobs, job_id, 1), 60)
    runner = runner_of(worker.pid, "tests.worker.stand_in_runner")
    assert runner is not None
    worker.send(signal.SIGTERM)
    assert worker.wait(25) == 0
    assert not is_alive(runner)
    row = jobs.row(job_id)
    assert row.status == "queued" and row.attempts_allowed - row.attempt == 3, "the attempt counted"
    assert jobs.events(job_id)[-1].data["reason"] == "released"
    assert boundaries(settings, job_id) == ["boundary-00001"]
    assert spawn_worker(blocks=3, block_seconds=0.0).wait(30) == 0
    assert jobs.job(job_id).status == "succeeded" and jobs.job(job_id).attempt == 2
    assert "continuing after block 1" in jobs.logs(job_id)
    assert outcomes(jobs, job_id) == ["released", "succeeded"]


def test_a_block_that_takes_longer_than_the_drain_is_dropped(
    jobs: Queue, job_body: dict[str, Any], settings: Settings, spawn_worker: SpawnWorker
) -> None:
    job_id = jobs.submit(job_body)
    worker = spawn_worker(settings.model_copy(update={"drain_seconds": 1.0}), blocks=20, block_seconds=60)
    eventually(lambda: in_block(jobs, job_id, 1), 60)
    runner = runner_of(worker.pid, "tests.worker.stand_in_runner")
    asked = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait(25) == 0
    assert time.monotonic() - asked < 30, "longer than an orchestrator waits"
    assert runner is not None and not is_alive(runner)
    assert jobs.row(job_id).status == "queued" and boundaries(settings, job_id) == []


@pytest.mark.parametrize("task", ["measure", "verify"])
def test_a_task_without_blocks_is_ended_at_once(
    task: str, jobs: Queue, job_body: dict[str, Any], start_worker: Any, settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    worker = start_worker(settings.model_copy(update={"drain_seconds": 60.0}), hang_in=task)
    pids = jobs.runner_pids(job_id)
    worker.stop.set()
    assert worker.result(20) == "queued"
    eventually(lambda: not any(map(is_alive, pids)), seconds=5)
    assert outcomes(jobs, job_id) == ["released"]


def test_a_cancelled_job_does_not_wait_for_its_block(
    jobs: Queue, job_body: dict[str, Any], start_worker: Any, settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    patient = settings.model_copy(update={"cancel_grace_seconds": 50.0})
    worker = start_worker(patient, blocks=3, block_seconds=60)
    eventually(lambda: in_block(jobs, job_id, 1), 60)
    with transaction(jobs.sessions) as session:
        queue.request_cancel(session, job_id)
    assert worker.result(20) == "cancelled"


def test_a_worker_told_to_stop_has_its_runner_save_the_block_says_goodbye_and_the_next_goes_on_to_the_same_bytes(
    jobs: Queue, settings: Settings, store: Store, start_part: StartPart, team: str
) -> None:
    """The product's worker and runner; above, lighter ones stand in for them."""
    body = register_layers(jobs.sessions, settings, team, layers=24, samples=32)
    job_id = jobs.submit(body)
    worker = start_part("worker", SECATEUR_THREADS="1", SECATEUR_DEVICE="cpu")
    eventually(lambda: jobs.job(job_id).progress > 0, 90)
    runner = runner_of(worker.pid)
    assert runner is not None
    os.kill(runner, signal.SIGSTOP)  # its block may be over before anybody looks
    worker.send(signal.SIGTERM)
    eventually(lambda: worker_state(jobs) == "draining")
    os.kill(runner, signal.SIGCONT)
    assert worker.wait(29) == 0, (settings.home / "worker.log").read_text()
    assert not is_alive(runner) and not is_registered(jobs)
    row = jobs.row(job_id)
    assert row.status == "queued" and row.attempts_allowed - row.attempt == 3, "the attempt counted"
    assert jobs.events(job_id)[-1].data["reason"] == "released"
    left = boundaries(settings, job_id)
    assert 1 <= len(left) <= 2 and int(left[-1][-5:]) < 24
    undisturbed = jobs.submit(body)
    start_part("worker", SECATEUR_THREADS="1", SECATEUR_DEVICE="cpu")
    jobs.succeeded(job_id, 120)
    assert f"continuing after block {int(left[-1][-5:])} of 24" in jobs.logs(job_id)
    jobs.succeeded(undisturbed, 120)
    first, second = (read(store.folder(artifact_prefix(*job))) for job in ((job_id, 2), (undisturbed, 1)))
    assert first.keys() == second.keys()
    assert all(numpy.array_equal(first[name], second[name]) for name in first)


def read(folder: Path | None) -> dict[str, Any]:
    assert folder is not None
    return load_file(folder / "model.safetensors")
