"""A worker for each device of a node, from one container: real processes, on simulated devices."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError
from sqlalchemy import select

from core.database import transaction
from core.service.jobs import queue
from core.service.jobs.tables import WorkerRow
from core.settings import Settings
from tests.runner.models import register_layers
from tests.worker.conftest import Queue, StartPart, eventually, is_alive, runner_of
from tests.worker.recordings import (
    GPU_IS_LOST,
    LIBRARY_NOT_FOUND,
    Recording,
    h100,
    lost,
)
from tests.worker.supervise import runner
from worker import devices
from worker.devices import Device, DeviceReader
from worker.embedded.serve import part_environment
from worker.processes import ChildProcess, spawn
from worker.supervisor.supervisor import Supervisor

SIMULATED = Path(__file__).parent / "simulated"


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path / "nvml.json")


@pytest.fixture
def node(settings: Settings, recording: Recording, tmp_path: Path) -> Iterator[ChildProcess]:
    """A container's process, whose node has two simulated devices."""
    recording.write(n0=h100(0), n1=h100(1))
    settings.home.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        **part_environment(settings),
        **recording.environment(SIMULATED),
        "CUDA_SIMULATED_LOG": str(tmp_path / "devices.log"),
        "SECATEUR_DEVICES": "0,1",
        "SECATEUR_DEVICE": "sim",
        "SECATEUR_THREADS": "1",
        "SECATEUR_WORKER_FRESH_SECONDS": "6",
    }
    with open(settings.home / "worker.log", "ab") as log:
        command = [sys.executable, "-m", "worker"]
        process = spawn(command, name="worker", stdout=log, stderr=subprocess.STDOUT, environment=environment)
    yield process
    process.end()


def fleet(jobs: Queue) -> dict[str, WorkerRow]:
    """Return the newest row of each device's worker."""
    with transaction(jobs.sessions) as session:
        rows = session.scalars(select(WorkerRow).order_by(WorkerRow.started_at)).all()
        session.expunge_all()
    return {str(row.device_id): row for row in rows}


def fleet_of(jobs: Queue, devices: Sequence[str]) -> dict[str, WorkerRow] | None:
    rows = fleet(jobs)
    return rows if rows.keys() == set(devices) else None


def hold(jobs: Queue, job_id: str) -> tuple[WorkerRow, int]:
    """Return the worker that has a job, and its runner, which stands still."""
    worker_id = eventually(lambda: jobs.row(job_id).worker_id)
    [worker] = [row for row in fleet(jobs).values() if row.id == worker_id]
    runner = eventually(lambda: runner_of(worker.pid), 200)
    os.kill(runner, signal.SIGSTOP)
    return worker, runner


def test_each_device_has_its_worker_and_where_one_is_killed_or_its_device_is_lost_the_others_go_on(
    jobs: Queue,
    settings: Settings,
    team: str,
    node: ChildProcess,
    recording: Recording,
    start_part: StartPart,
    api: TestClient,
    tmp_path: Path,
) -> None:
    """One life of a node, because each of its processes takes seconds to start."""
    body = register_layers(jobs.sessions, settings, team, layers=2) | {"method": "wanda"}
    eventually(lambda: fleet_of(jobs, "01"), 200)  # each loads what a worker needs, at the same time
    started = fleet(jobs)
    assert len({row.pid for row in started.values()}) == 2 and {row.device for row in started.values()} == {"sim"}
    assert started["0"].memory_bytes == started["1"].memory_bytes

    killed_under = jobs.submit(body)
    killed, _ = hold(jobs, killed_under)
    [other] = [row for row in started.values() if row.id != killed.id]
    assert jobs.succeeded(jobs.submit(body), 120).attempt == 1, "the other takes what comes meanwhile"
    family = [killed.pid, *(each.pid for each in psutil.Process(killed.pid).children(recursive=True))]
    os.kill(killed.pid, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, family)))
    again = eventually(lambda: (new := fleet(jobs)[str(killed.device_id)]).id != killed.id and new)
    assert again.pid != killed.pid and fleet(jobs)[str(other.device_id)].pid == other.pid and is_alive(other.pid)
    jobs.end_lease(killed_under)
    start_part("dispatcher", SECATEUR_DISPATCH_INTERVAL_SECONDS="0.5")
    assert jobs.succeeded(killed_under).attempt == 2

    lost_under = jobs.submit(body)
    failing, runner = hold(jobs, lost_under)
    [other] = [row for row in fleet(jobs).values() if row.id != failing.id]
    cards = {f"n{number}": h100(number) for number in (0, 1)}
    recording.write(**cards | {f"n{failing.device_id}": lost(h100(int(str(failing.device_id))))})
    eventually(lambda: fleet(jobs)[str(failing.device_id)].state == "draining")
    os.kill(runner, signal.SIGCONT)
    assert jobs.succeeded(lost_under).attempt == 2
    assert [event.data["reason"] for event in jobs.events(lost_under) if "reason" in event.data] == [
        "submitted",
        "released",
    ]
    shown = {each["id"]: each for each in api.get("/v1/workers").json()["data"]}
    assert shown[failing.id]["state"] == "draining" and "GPU is lost" in shown[failing.id]["reason"]
    assert shown[other.id]["state"] != "draining" and shown[other.id]["device_name"] == "NVIDIA H100 80GB HBM3"
    ready = eventually(lambda: not (said := api.get("/readyz").json())["checks"]["devices"] and said)
    assert ready["can_run"] is True
    assert is_alive(failing.pid), "whoever is gone tells nothing"

    assert used_devices(tmp_path / "devices.log") == {each["UUID"] for each in (h100(0), h100(1))}
    node.send(signal.SIGTERM)
    assert node.wait(60) == 0, (settings.home / "worker.log").read_text()
    assert not any(map(is_alive, (failing.pid, other.pid)))
    assert {row.id for row in fleet(jobs).values()} <= {killed.id}, "no goodbye"


def used_devices(log: Path) -> set[str]:
    """Return the devices that runners took memory of; those of one fork server are of one device."""
    of_server: dict[str, set[str]] = {}
    for line in log.read_text().splitlines():
        server, device = line.split()
        of_server.setdefault(server, set()).add(device)
    assert all(len(devices) == 1 for devices in of_server.values()), of_server
    return set.union(*of_server.values())


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"devices": "0,cuda:1"}, "'cuda:1' is not a GPU"),
        ({"devices": "0,1", "device": "cpu"}, "SECATEUR_DEVICE is cpu"),
    ],
)
def test_devices_that_make_no_sense_are_refused_at_the_start(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate(variables)


def test_an_attempt_that_fails_on_a_device_that_failed_is_given_back_and_does_not_count(
    jobs: Queue, settings: Settings, job_body: dict[str, Any]
) -> None:
    job_id = jobs.submit(job_body)
    with transaction(jobs.sessions) as session:
        claim = queue.claim(session, queue="default", worker_id="of_a_device", lease_seconds=20)
    assert claim is not None
    failing = runner(json.dumps({"fail_in": "prune", "code": "internal_error", "retryable": False}))
    failures = iter(["the device does not answer: GPU is lost"])
    supervisor = Supervisor(
        settings, jobs.sessions, jobs.store, stop=Event(), runner=failing, find_failure=lambda: next(failures)
    )
    assert supervisor.run(claim) == "queued"
    row = jobs.row(job_id)
    assert row.attempts_allowed - row.attempt == settings.max_attempts, "the attempt counted"
    assert jobs.events(job_id)[-1].data["reason"] == "released"


@pytest.fixture
def reader(settings: Settings, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DeviceReader]:
    """Make readers of settings that differ so, which ask the recording."""
    for name, value in recording.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(**changes: Any) -> DeviceReader:
        return DeviceReader(settings.model_copy(update={"device": "cuda", **changes}))

    return make


def test_a_device_with_uncorrectable_errors_or_that_is_gone_has_a_failure_and_keeps_its_name(
    reader: Callable[..., DeviceReader], recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording.write(n0=h100(0), n1=h100(1))
    watched = reader()
    assert watched.read() == Device(
        uuid=h100(0)["UUID"], name="NVIDIA H100 80GB HBM3", memory_bytes=85_520_809_984,
        memory_used_bytes=2**30, utilisation=0.37, celsius=41, uncorrected_errors=0,
    )  # fmt: skip
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    second = reader().read()
    assert second is not None and second.uuid == h100(1)["UUID"], "the first that is visible is meant"
    for after, fault in (
        ({"n0": h100(0, TotalEccErrors=2)}, "2 uncorrectable errors"),
        ({"n0": lost(h100(0))}, "GPU is lost"),
        ({"n0": h100(1)}, "knows no device GPU-"),
        ({"driver": {"error": GPU_IS_LOST}}, "GPU is lost"),
        ({"driver": {"error": LIBRARY_NOT_FOUND}}, "no NVIDIA driver"),
    ):
        recording.write(**after)
        device = watched.read()
        assert device is not None and device.name == "NVIDIA H100 80GB HBM3"
        assert fault in str(device.failure), after


def test_a_driver_that_gives_no_answer_is_a_failure_once_it_gave_none_for_long(
    reader: Callable[..., DeviceReader], recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording.write(n0=h100(0))
    watched = reader()
    watched.read()
    monkeypatch.setattr(devices, "ANSWER_SECONDS", 0.01)
    recording.write("hangs")
    *patient, silent = (watched.read() for _ in range(devices.MOST_UNANSWERED))
    assert [each and (each.failure, each.name) for each in patient] == [(None, h100(0)["Name"])] * len(patient)
    assert silent is not None and "gave no answer" in str(silent.failure) and silent.uuid == h100(0)["UUID"]


@pytest.mark.gpu
def test_the_gpu_of_this_machine_is_found(settings: Settings) -> None:
    if not Path("/dev/nvidiactl").exists():
        pytest.skip("needs an NVIDIA GPU")
    device = DeviceReader(settings.model_copy(update={"device": "cuda"})).read()
    assert device is not None and device.memory_bytes is not None and device.memory_bytes > 2**30
    assert device.uuid is not None and device.failure is None
