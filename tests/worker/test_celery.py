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
from sqlalchemy import delete

from core.database import transaction
from core.jobs.broker import celery_app
from core.jobs.hints import hint_sender
from core.jobs.tables import WorkerRow
from core.settings import Settings
from tests.worker.conftest import Queue, StartPart, eventually, is_alive, runner_of, worker_state


@pytest.fixture
def body(model: str) -> dict[str, Any]:
    """A job that needs no text, and so no tokenizer."""
    return {"model": model, "method": "magnitude", "sparsity": 0.5}


def test_a_worker_is_killed_and_the_next_runs_its_job_and_what_the_dispatcher_tells_it_of(
    jobs: Queue, body: dict[str, Any], start_part: StartPart
) -> None:
    """One life of a fleet, because each of its processes takes seconds to start. How a worker leaves that is told to,
    and that it goes on from one waiting job to the next, `test_drain` shows."""
    job_id = jobs.submit(body)
    killed = start_part("worker", SECATEUR_LEASE_SECONDS="3", SECATEUR_LEASE_RENEW_SECONDS="1")
    eventually(lambda: runner_of(killed.pid), seconds=60)
    family = [process.pid for process in psutil.Process(killed.pid).children(recursive=True)]
    killed.send(signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, family)), seconds=10)  # nothing is left running
    often = {"SECATEUR_DISPATCH_INTERVAL_SECONDS": "0.5", "SECATEUR_HINT_STALE_SECONDS": "1"}
    dispatcher = start_part("dispatcher", **often)
    eventually(lambda: jobs.events(job_id)[-1].data.get("reason") == "lease_expired", seconds=30)

    forget_workers(jobs)
    worker = start_part("worker")
    assert jobs.succeeded(job_id).attempt == 2  # it found that, waiting
    eventually(lambda: worker_state(jobs) == "idle")
    jobs.succeeded(jobs.submit(body))  # its hint was lost: the dispatcher sends it again
    memory = {process.pid: process.memory_maps() for process in psutil.Process(worker.pid).children()}
    loaded = [path for maps in memory.values() for path in (each.path for each in maps) if "libtorch" in path]
    assert memory and loaded == [], "the pool's process has loaded torch"

    clock = psutil.Process(dispatcher.pid).children()
    assert clock
    dispatcher.send(signal.SIGKILL)
    eventually(lambda: not any(is_alive(process.pid) for process in clock), seconds=10)  # it takes its clock along


def forget_workers(jobs: Queue) -> None:
    """The row of one that was killed is nobody's."""
    with transaction(jobs.sessions) as session:
        session.execute(delete(WorkerRow))


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
