"""From claim to end: what the supervisor makes of what the runner does, and of what is done to it. At SIGTERM it
finishes the block it is in, gives the job back and leaves; the next one goes on from there. How long a lease holds, and
how soon the end that was asked for is seen.
"""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs import queue, service
from core.service.jobs.tables import AttemptRow, JobRow
from core.service.publications.retry import retry
from core.settings import Settings
from core.storage import LocalStore, StoredFile, artifact_prefix
from secateur_wire.errors import RunnerLost
from tests.worker.conftest import (
    Queue,
    SpawnWorker,
    StartWorker,
    dispatched,
    eventually,
    is_alive,
    runner_of,
    saved_blocks,
)
from tests.worker.supervise import runner
from worker.supervisor.lease import Lease
from worker.supervisor.supervisor import Supervisor


def test_a_job_goes_through_its_stages_to_a_stored_artifact(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker, settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    assert start_worker().result() == "succeeded"
    job = jobs.job(job_id)
    assert job.status == "succeeded" and job.stage == "store" and job.progress == 1.0 and job.attempt == 1
    stages = [event.data["stage"] for event in jobs.events(job_id) if event.type == "stage"]
    assert stages == ["open", "prune", "evaluate", "verify", "store"]
    assert jobs.events(job_id)[-1].data["status"] == "succeeded"
    assert {"secateur.json", "README.md", "config.json", "model.safetensors"} <= jobs.artifact_names(job_id)
    assert job.metrics is not None
    seconds = job.metrics["seconds"]
    assert seconds["prune"] > 0 and seconds["total"] >= seconds["fetch"] + seconds["prune"]
    with transaction(jobs.sessions) as session:
        report = service.report_document(session, jobs.team, job_id)
    assert report["verification"]["maximum_difference"] == 0.0 and report["metrics"]["latency"]["dense_ms"] == 1.0
    assert not (settings.work_root / job_id).exists()


def test_a_runner_killed_with_9_is_retried_and_the_next_attempt_knows_the_last(
    jobs: Queue,
    job_body: dict[str, Any],
    start_worker: StartWorker,
    settings: Settings,
    capfd: pytest.CaptureFixture[str],
) -> None:
    job_id = jobs.submit(job_body)
    worker = start_worker(hang_in="verify")
    pid, helper = jobs.runner_pids(job_id)
    os.kill(pid, signal.SIGKILL)
    assert worker.result() == "queued"
    written = "".join(capfd.readouterr())  # where logs go depends on what the process has run before
    assert "attempt failed" in written and f"{RunnerLost.title} (verify): SIGKILL ended it." in written
    eventually(lambda: not is_alive(helper))
    requeued = jobs.events(job_id)[-1].data
    assert requeued["error"]["code"] == "runner_lost" and "SIGKILL" in requeued["error"]["message"]
    assert (settings.work_root / job_id / "attempt-1").is_dir()

    assert start_worker().result() == "succeeded"
    assert jobs.job(job_id).attempt == 2
    assert jobs.logs(job_id)[-1] == "previous attempt-1"
    assert not (settings.work_root / job_id).exists()


def test_a_row_that_this_release_cannot_run_ends_its_job_and_not_the_worker(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker
) -> None:
    job_id = jobs.submit(job_body)
    with transaction(jobs.sessions) as session:
        row = session.get_one(JobRow, job_id)
        row.body = row.body | {"parameters": {"of_yore": 1}}
    assert start_worker().result() == "failed"
    error = jobs.row(job_id).error
    assert error is not None and (error["code"], error["param"]) == ("invalid_parameters", "parameters.of_yore")


@pytest.mark.parametrize(("task", "stubborn"), [("prune", False), ("measure", True)])
def test_cancel_ends_the_runner_and_all_it_started(
    task: str, stubborn: bool, jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker, settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    changed = settings.model_copy(update={"cancel_grace_seconds": 0.5})
    worker = start_worker(changed, hang_in=task, ignore_signals=stubborn)
    pids = jobs.runner_pids(job_id)
    with transaction(jobs.sessions) as session:
        assert service.cancel(session, jobs.team, job_id).status == "cancelling"
    assert worker.result() == "cancelled"
    eventually(lambda: not any(map(is_alive, pids)))
    assert jobs.job(job_id).status == "cancelled"
    attempt = settings.work_root / job_id / "attempt-1"
    assert saved_blocks(settings, job_id) and not (attempt / "artifact").exists()
    with transaction(jobs.sessions) as session:
        retry(session, jobs.team, job_id, max_attempts=1)
    assert start_worker().result() == "succeeded"
    assert jobs.logs(job_id)[-1] == "previous attempt-1"


def test_a_time_limit_ends_the_job_for_good(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker, settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    limited = settings.model_copy(update={"job_time_limit_seconds": 1.0})
    assert start_worker(limited, hang_in="prune").result() == "failed"
    error = jobs.job(job_id).error
    assert error is not None and error.code == "time_limit_exceeded"


def test_a_worker_that_lost_its_lease_writes_nothing_more(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker
) -> None:
    job_id = jobs.submit(job_body)
    worker = start_worker(hang_in="prune")
    pids = jobs.runner_pids(job_id)
    with transaction(jobs.sessions) as session:
        session.execute(text("UPDATE jobs SET lease_expires_at = now() - interval '1 hour'"))
        assert queue.expire_leases(session) == [job_id]
    last_event = jobs.row(job_id).last_event
    assert worker.result() == "lost"
    eventually(lambda: not any(map(is_alive, pids)))
    assert jobs.row(job_id).last_event == last_event and jobs.job(job_id).status == "queued"


@pytest.mark.parametrize(
    ("behaviour", "code", "end"),
    [
        ({"fail_in": "prune", "code": "disk_full", "retryable": True}, "disk_full", "queued"),
        ({"fail_in": "verify", "code": "reload_check_failed", "retryable": False}, "reload_check_failed", "failed"),
        ({"crash": "MemoryError: no more"}, "out_of_memory", "failed"),
        ({"nonsense": "hello"}, "internal_error", "failed"),
    ],
)
def test_ends_are_classified(
    behaviour: dict[str, Any], code: str, end: str, jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker
) -> None:
    job_id = jobs.submit(job_body)
    assert start_worker(**behaviour).result() == end
    assert jobs.events(job_id)[-1].data["error"]["code"] == code


def test_what_a_job_can_do_without_is_left_out_with_a_note_where_it_does_not_fit_in_memory(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker
) -> None:
    job_id = jobs.submit(job_body | {"evaluation": {"prompts": ["Once", "upon"]}})
    assert start_worker(fail_in="measure generate", code="out_of_memory", retryable=False).result() == "succeeded"
    metrics = jobs.job(job_id).metrics
    assert metrics is not None and metrics["latency"] is None
    with transaction(jobs.sessions) as session:
        report = service.report_document(session, jobs.team, job_id)
    assert report["notes"] == ["Latency was not measured: as told", "Nothing was generated: as told"]
    assert report["generations"] == [{"prompt": each, "dense": None, "pruned": None} for each in ("Once", "upon")]


def _edit_model(settings: Settings) -> None:
    with open(settings.models_root / "tiny" / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x77")


def _edit_text(settings: Settings) -> None:
    next(settings.datasets_root.iterdir()).write_text("other words")


@pytest.mark.parametrize(
    ("change", "code"),
    [(_edit_model, "unusable_model"), (_edit_text, "unusable_dataset")],
)
def test_sources_that_changed_since_they_were_registered_are_refused(
    change: Callable[[Settings], None],
    code: str,
    jobs: Queue,
    job_body: dict[str, Any],
    start_worker: StartWorker,
    settings: Settings,
) -> None:
    job_id = jobs.submit(job_body)
    change(settings)
    assert start_worker().result() == "failed"
    error = jobs.job(job_id).error
    assert error is not None and error.code == code


def test_a_supervisor_killed_with_9_takes_its_runner_along_and_its_job_is_run_again(
    jobs: Queue, job_body: dict[str, Any], spawn_worker: SpawnWorker, settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    worker = spawn_worker(hang_in="prune")
    pid, _ = jobs.runner_pids(job_id)
    os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: not is_alive(pid))
    assert jobs.job(job_id).status == "running", "nobody could have noticed yet"
    jobs.end_lease(job_id)
    assert dispatched(jobs, settings) == [(job_id, "default")]
    second = spawn_worker()
    assert second.wait(60) == 0
    assert jobs.job(job_id).status == "succeeded" and jobs.job(job_id).attempt == 2
    assert jobs.logs(job_id)[-1] == "previous attempt-1"


def test_a_job_cancelled_while_its_artifact_is_stored_keeps_nothing(
    jobs: Queue, job_body: dict[str, Any], settings: Settings
) -> None:
    class StoreThatIsInterrupted(LocalStore):
        def publish(self, folder: Path, prefix: str, **options: Any) -> list[StoredFile]:
            files = super().publish(folder, prefix, **options)
            with transaction(jobs.sessions) as session:
                service.cancel(session, jobs.team, job_id)
            return files

    job_id = jobs.submit(job_body)
    store = StoreThatIsInterrupted(settings.store_root)
    with transaction(jobs.sessions) as session:
        claim = queue.claim(session, queue="default", worker_id="here", lease_seconds=settings.lease_seconds)
    assert claim is not None
    supervisor = Supervisor(settings, jobs.sessions, store, stop=threading.Event(), runner=runner("{}"))
    assert supervisor.run(claim) == "cancelled"
    assert not store.folder(artifact_prefix(job_id, 1)).exists()


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


def test_what_the_runner_is_at_is_told_until_the_next_stage(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.supervisor.recorder.SIGN_SECONDS", 0.0)  # each is told
    job_id = jobs.submit(job_body)
    assert start_worker(doing=["layers: 3 of 30", "layers: 4 of 30"]).result() == "succeeded"
    events = jobs.events(job_id)
    doing = [event.data["doing"] for event in events if "doing" in event.data]
    assert list(dict.fromkeys(doing))[:2] == ["layers: 3 of 30", "layers: 4 of 30"]
    evaluated = next(number for number, event in enumerate(events) if event.data.get("stage") == "evaluate")
    assert {event.data.get("doing") for event in events[evaluated:]} <= {None, "storing the artifact"}
    progress = [event.data["progress"] for event in events if event.type == "progress"]
    assert progress == sorted(progress)


@pytest.fixture
def targeted(job_body: dict[str, Any]) -> dict[str, Any]:
    return job_body | {"method": "llm-pruner", "sparsity": None, "target": {"latency_ratio": 0.7}}


@pytest.mark.parametrize(("latency", "end"), [(0.72, "succeeded"), (0.75, "failed")])
def test_the_latency_measured_at_the_end_decides_within_its_spread(
    latency: float, end: str, jobs: Queue, targeted: dict[str, Any], start_worker: StartWorker
) -> None:
    job_id = jobs.submit(targeted)
    assert start_worker(latency=latency).result() == end
    job, report = jobs.job(job_id), jobs.report(job_id)
    assert job.metrics is not None and job.sparsity is None
    figures = {"kind": "latency_ratio", "asked": 0.7, "reached": latency, "spread": 0.05, "sparsity": 0.25}
    assert job.metrics["target"] == figures | {"met": end == "succeeded"}
    assert report["target"]["search"]["steps"] == [{"sparsity": 0.25, "ratio": 0.7}]
    assert report["told"] == 0.25 and report["recipe"]["sparsity"] is None
    assert report["recipe"]["target"] == {"latency_ratio": 0.7}
    assert "model.safetensors" in jobs.artifact_names(job_id), "kept, as where any gate is missed"
    if end == "failed":
        assert job.error is not None and (job.error.code, job.error.param) == ("gate_missed", "target.latency_ratio")
        assert "0.7 was asked for" in job.error.message and "reached 0.75" in job.error.message


def test_a_latency_that_cannot_be_told_fails_the_job_once_and_stores_nothing(
    jobs: Queue, targeted: dict[str, Any], start_worker: StartWorker
) -> None:
    job_id = jobs.submit(targeted)
    assert start_worker(fail_in="measure", code="out_of_memory", retryable=False).result() == "failed"
    job = jobs.job(job_id)
    assert job.error is not None and (job.error.code, job.attempt) == ("out_of_memory", 1)
    assert jobs.artifact_names(job_id) == set()


HOUR = 3600.0


def claim(jobs: Queue, body: dict[str, Any]) -> str:
    job_id = jobs.submit(body)
    with transaction(jobs.sessions) as session:
        assert queue.claim(session, queue="default", worker_id="here", lease_seconds=HOUR)
    return job_id


def test_a_cancel_is_seen_long_before_the_lease_is_renewed(jobs: Queue, job_body: dict[str, Any]) -> None:
    job_id = claim(jobs, job_body)
    with Lease(jobs.sessions, job_id, 1, "here", lease_seconds=2 * HOUR, renew_seconds=HOUR) as lease:
        assert lease.state == "running"
        with transaction(jobs.sessions) as session:
            service.cancel(session, jobs.team, job_id)
        eventually(lambda: lease.state == "cancelling")


def test_a_lease_that_nobody_renewed_is_lost_when_its_time_is_over(
    sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("worker.supervisor.lease.time", SimpleNamespace(monotonic=lambda: clock.now))
    lease = Lease(sessions, "job_1", 1, "here", lease_seconds=60, renew_seconds=15)
    clock.now += 59
    assert lease.state == "running"
    clock.now += 1
    assert lease.state == "lost"
    clock.now -= 1
    assert lease.state == "lost", "whoever lost it does not get it back"
