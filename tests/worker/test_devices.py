"""A worker for each device of a node, from one container: real processes, on simulated devices."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError
from sqlalchemy import select

from core.database import transaction
from core.service.jobs.tables import WorkerRow
from core.settings import Settings
from tests.runner.models import register_layers
from tests.worker.conftest import Queue, StartPart, eventually, is_alive, runner_of
from worker.embedded.serve import part_environment
from worker.node import worker_environment
from worker.processes import ChildProcess, spawn

SIMULATED = Path(__file__).parent / "simulated"
ROOT = SIMULATED.parents[2]
LAYERS = 24


@pytest.fixture
def node(settings: Settings, tmp_path: Path) -> Iterator[ChildProcess]:
    """A container's process, whose node has two simulated devices."""
    settings.home.mkdir(parents=True, exist_ok=True)
    paths = [str(SIMULATED), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        **part_environment(settings),
        "PYTHONPATH": os.pathsep.join(paths),
        "CUDA_SIMULATED_LOG": str(tmp_path / "devices.log"),
        "SECATEUR_DEVICES": "0,1",
        "SECATEUR_DEVICE": "sim",
        "SECATEUR_THREADS": "1",
        "SECATEUR_WORKER_FRESH_SECONDS": "20",
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


def test_each_device_has_a_worker_of_its_own_and_one_that_is_killed_starts_anew_while_the_others_go_on(
    jobs: Queue, settings: Settings, team: str, node: ChildProcess, start_part: StartPart, tmp_path: Path
) -> None:
    body = register_layers(jobs.sessions, settings, team, layers=LAYERS, samples=32)
    rows = eventually(lambda: fleet_of(jobs, "01"), 90)
    assert len({row.id for row in rows.values()}) == len({row.pid for row in rows.values()}) == 2
    assert {row.device for row in rows.values()} == {"sim"}
    assert rows["0"].memory_bytes == rows["1"].memory_bytes
    submitted = [jobs.submit(body), jobs.submit(body)]

    def both_run() -> dict[str, str] | None:
        """Return the job of each device."""
        by_worker = {jobs.row(job).worker_id: job for job in submitted}
        held = {device: by_worker[row.id] for device, row in rows.items() if row.id in by_worker}
        return held if len(held) == 2 else None

    held = eventually(both_run)
    runner = eventually(lambda: runner_of(rows["0"].pid), 90)
    os.kill(runner, signal.SIGSTOP)  # its job shall not be over before its worker is killed
    family = [rows["0"].pid, *(each.pid for each in psutil.Process(rows["0"].pid).children(recursive=True))]
    os.kill(rows["0"].pid, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, family)))
    jobs.succeeded(held["1"], 120)
    again = eventually(lambda: (new := fleet(jobs)["0"]).id != rows["0"].id and new)
    assert again.pid != rows["0"].pid and fleet(jobs)["1"].pid == rows["1"].pid and is_alive(rows["1"].pid)
    jobs.end_lease(held["0"])
    start_part("dispatcher", SECATEUR_DISPATCH_INTERVAL_SECONDS="0.5")
    assert jobs.succeeded(held["0"], 120).attempt == 2

    assert used_devices(tmp_path / "devices.log") == {"0", "1"}
    node.send(signal.SIGTERM)
    assert node.wait(60) == 0, (settings.home / "worker.log").read_text()
    assert not any(map(is_alive, (again.pid, rows["1"].pid))) and fleet(jobs).keys() <= {"0"}, "no goodbye"


def used_devices(log: Path) -> set[str]:
    """Return the devices that runners took memory of; those of one fork server are of one device."""
    of_server: dict[str, set[str]] = {}
    for line in log.read_text().splitlines():
        server, device = line.split()
        of_server.setdefault(server, set()).add(device)
    assert all(len(devices) == 1 for devices in of_server.values()), of_server
    return set.union(*of_server.values())


def test_what_a_node_has_is_shared_out_among_its_workers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("worker.node.memory_bytes", lambda: 100)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    both = settings.model_copy(update={"devices": ["0", "1"], "device": None, "worker_memory_bytes": None})
    expected = {"CUDA_VISIBLE_DEVICES": "1", "SECATEUR_WORKER_MEMORY_BYTES": "50", "SECATEUR_DEVICE": "cuda"}
    assert worker_environment(both, "1") == expected | {"SECATEUR_THREADS": "4"}
    told = both.model_copy(update={"worker_memory_bytes": 70, "threads": 3})
    assert worker_environment(told, "0") == expected | {
        "CUDA_VISIBLE_DEVICES": "0",
        "SECATEUR_WORKER_MEMORY_BYTES": "70",
    }


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"devices": "0,0"}, "twice"),
        ({"devices": "0,cuda:1"}, "'cuda:1' is no GPU"),
        ({"devices": "0,1", "device": "cpu"}, "SECATEUR_DEVICE is cpu"),
    ],
)
def test_devices_that_make_no_sense_are_refused_at_the_start(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate(variables)
