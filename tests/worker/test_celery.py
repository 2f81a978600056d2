"""Workers and dispatcher as the processes they are in production, with the real runner."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.jobs.broker import celery_app
from core.jobs.hints import hint_sender
from core.settings import Settings
from tests.worker.conftest import Queue, StartPart, eventually, is_alive, is_registered, runner_of, worker_state


@pytest.fixture
def body(model: str) -> dict[str, Any]:
    """A job that needs no text, and so no tokenizer."""
    return {"model": model, "method": "magnitude", "sparsity": 0.5}


def test_a_worker_runs_what_it_finds_and_what_the_dispatcher_tells_it_of(
    jobs: Queue, body: dict[str, Any], start_part: StartPart
) -> None:
    """That it goes on from one waiting job to the next, a worker shows in `test_drain`."""
    waiting = jobs.submit(body)
    worker = start_part("worker")
    jobs.succeeded(waiting)
    eventually(lambda: worker_state(jobs) == "idle")
    start_part("dispatcher", SECATEUR_DISPATCH_INTERVAL_SECONDS="0.5", SECATEUR_HINT_STALE_SECONDS="1")
    jobs.succeeded(jobs.submit(body))  # its hint was lost: the dispatcher sends it again
    memory = {process.pid: process.memory_maps() for process in psutil.Process(worker.pid).children()}
    loaded = [path for maps in memory.values() for path in (each.path for each in maps) if "libtorch" in path]
    assert memory and loaded == [], "the pool's process has loaded torch"


def test_a_worker_told_to_stop_gives_its_job_back_and_says_goodbye(
    jobs: Queue, body: dict[str, Any], settings: Settings, start_part: StartPart
) -> None:
    job_id = jobs.submit(body)
    worker = start_part("worker")
    runner = eventually(lambda: runner_of(worker.pid), seconds=30)
    worker.send(signal.SIGTERM)
    assert worker.wait(20) == 0, (settings.home / "worker.log").read_text()
    assert not is_alive(runner)
    job = jobs.job(job_id)
    assert job.status == "queued" and jobs.events(job_id)[-1].data["reason"] == "released"
    assert not is_registered(jobs)


def test_a_worker_killed_with_9_leaves_nothing_running_and_the_dispatcher_returns_its_job(
    jobs: Queue, body: dict[str, Any], start_part: StartPart
) -> None:
    job_id = jobs.submit(body)
    worker = start_part("worker", SECATEUR_LEASE_SECONDS="3", SECATEUR_LEASE_RENEW_SECONDS="1")
    eventually(lambda: runner_of(worker.pid), seconds=30)
    family = [process.pid for process in psutil.Process(worker.pid).children(recursive=True)]
    worker.send(signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, family)), seconds=10)
    start_part("dispatcher", SECATEUR_DISPATCH_INTERVAL_SECONDS="0.5")
    eventually(lambda: jobs.events(job_id)[-1].data.get("reason") == "lease_expired", seconds=30)
    start_part("worker")
    assert jobs.succeeded(job_id).attempt == 2


def test_a_dispatcher_killed_with_9_takes_its_clock_along(settings: Settings, start_part: StartPart) -> None:
    dispatcher = start_part("dispatcher")
    clock = eventually(lambda: psutil.Process(dispatcher.pid).children(), seconds=30)
    eventually(lambda: any((settings.home / "broker" / "control").iterdir()), seconds=30)
    dispatcher.send(signal.SIGKILL)
    eventually(lambda: not any(is_alive(process.pid) for process in clock), seconds=10)


def test_a_message_appears_whole_or_not_at_all(settings: Settings) -> None:
    app = celery_app(settings)
    send = hint_sender(app, 60)
    folder = Path(settings.home, "broker", "messages")
    for number in range(20):
        send(f"job_{number}", "default")
    for file in folder.iterdir():
        assert file.name.endswith(".default.msg") and json.loads(file.read_text())
    app.close()


def test_a_worker_imports_no_torch() -> None:
    look = "import sys, worker.app, worker.tasks, worker.dispatcher, worker.cli; print('torch' in sys.modules)"
    environment = {**os.environ, "SECATEUR_HOME": "/tmp/secateur-test-imports"}
    printed = subprocess.run([sys.executable, "-c", look], env=environment, check=True, capture_output=True, text=True)
    assert printed.stdout.strip() == "False"
