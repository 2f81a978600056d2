"""Workers and dispatcher as the processes they are in production, with the real runner."""

import json
import os
import signal
from pathlib import Path

import numpy
import psutil
from safetensors.numpy import load_file

from core.service.jobs.broker import celery_app
from core.service.jobs.hints import hint_sender
from core.settings import Settings
from core.storage import Store, artifact_prefix
from tests.runner.models import register_layers
from tests.worker.conftest import (
    Queue,
    StartPart,
    eventually,
    is_alive,
    is_registered,
    runner_of,
    saved_blocks,
    worker_state,
)

THREADS = {"SECATEUR_THREADS": "1", "SECATEUR_DEVICE": "cpu"}
LAYERS = 24


def test_a_worker_drains_the_next_goes_on_to_the_same_bytes_is_killed_and_the_dispatcher_sees_to_its_job(
    jobs: Queue, settings: Settings, store: Store, team: str, start_part: StartPart
) -> None:
    """One life of a fleet, because each of its processes takes seconds to start."""
    body = register_layers(jobs.sessions, settings, team, layers=LAYERS, samples=32)
    job_id = jobs.submit(body)
    done = drain_in_a_block(jobs, settings, job_id, start_part)
    often = {"SECATEUR_DISPATCH_INTERVAL_SECONDS": "0.5", "SECATEUR_HINT_STALE_SECONDS": "1"}
    poll = {"SECATEUR_WORKER_POLL_SECONDS": "3600"}
    start_part("dispatcher", **often)
    worker = start_part("worker", executed=True, SECATEUR_LEASE_RENEW_SECONDS="0.5", **THREADS, **poll)
    jobs.succeeded(job_id)
    assert f"continuing after block {done} of {LAYERS}" in jobs.logs(job_id)
    eventually(lambda: worker_state(jobs) == "idle")
    undisturbed = jobs.submit(body)
    jobs.succeeded(undisturbed)  # its hint was lost: the dispatcher sends it again
    require_same_weights(store, (job_id, 2), (undisturbed, 1))
    parent = psutil.Process(worker.pid)
    # A runner's server that outlives its parent becomes a child of the worker too: the pool's is a copy of the worker.
    known = [each for each in psutil.process_iter(["ppid", "cmdline"]) if each.info["ppid"] == worker.pid]
    pool = [each for each in known if each.info["cmdline"] == parent.cmdline()]
    loaded = [each.path for child in pool for each in child.memory_maps() if "libtorch" in each.path]
    assert pool and loaded == [], "the pool's process has loaded torch"

    lost = jobs.submit(body)
    eventually(lambda: runner_of(worker.pid))
    family = [process.pid for process in psutil.Process(worker.pid).children(recursive=True)]
    worker.send(signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, family)))  # nothing is left running
    jobs.end_lease(lost)
    start_part("worker", stand_in={})
    assert jobs.succeeded(lost).attempt == 2
    assert "lease_expired" in [event.data.get("reason") for event in jobs.events(lost)]


def drain_in_a_block(jobs: Queue, settings: Settings, job_id: str, start_part: StartPart) -> int:
    """Have a worker find the waiting job and stop it in a block: it saves that and says goodbye. The block's number."""
    worker = start_part("worker", executed=True, **THREADS)
    eventually(lambda: jobs.job(job_id).progress > 0)
    runner = runner_of(worker.pid)
    assert runner is not None
    os.kill(runner, signal.SIGSTOP)  # its block may be over before anybody looks
    worker.send(signal.SIGTERM)
    eventually(lambda: worker_state(jobs) == "draining")
    os.kill(runner, signal.SIGCONT)
    assert worker.wait(60) == 0, (settings.home / "worker.log").read_text()
    assert not is_alive(runner) and not is_registered(jobs)
    row = jobs.row(job_id)
    assert row.status == "queued" and row.attempts_allowed - row.attempt == 3, "the attempt counted"
    assert jobs.events(job_id)[-1].data["reason"] == "released"
    left = saved_blocks(settings, job_id)
    assert 1 <= len(left) <= 2 and left[-1] < LAYERS
    return left[-1]


def require_same_weights(store: Store, *attempts: tuple[str, int]) -> None:
    folders = [store.folder(artifact_prefix(*attempt)) for attempt in attempts]
    first, second = (load_file(folder / "model.safetensors") for folder in folders if folder is not None)
    assert first.keys() == second.keys()
    assert all(numpy.array_equal(first[name], second[name]) for name in first)


def test_a_message_appears_whole_or_not_at_all(settings: Settings) -> None:
    app = celery_app(settings)
    send = hint_sender(app)
    folder = Path(settings.home, "broker", "messages")
    for number in range(20):
        send(f"job_{number}", "default")
    for file in folder.iterdir():
        assert file.name.endswith(".default.msg") and json.loads(file.read_text())
    app.close()
