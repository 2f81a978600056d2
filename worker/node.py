"""Workers of one container: a single one, or one for each device in `SECATEUR_DEVICES`.

Each worker is a Celery process with its own fork server, runners and row in the fleet. It sees only its own device,
because CUDA's variable is set before anything is loaded. The process that watches the workers loads no device library
and holds no connection. It restarts a worker that ends or hangs; the others keep running.

CUDA gets the devices' UUIDs if the driver reports them, because numbers change when a device falls off the bus.
"""

import os
import signal
import subprocess
import sys
import threading
import time

import structlog

from core.device_kinds import CUDA
from core.settings import Settings
from worker import alive
from worker.devices import OWN, VISIBLE, ask
from worker.machine import memory_bytes
from worker.processes import ChildProcess, spawn

LOOK_SECONDS = 0.2
RESTART_SECONDS = 5.0
"""Shortest time between two starts of a device's worker."""

logger = structlog.get_logger()


def worker_command(settings: Settings, device: str | None = None) -> list[str]:
    """Return the command of a worker; `device` is set if its node has several."""
    return [
        *(sys.executable, "-m", "celery", "--quiet", "--app", "worker.app", "worker"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"),
        *("--concurrency", "1", "--queues", settings.worker_queue, "--hostname", f"{alive.worker_name(device)}@%h"),
    ]


def worker_environment(settings: Settings, device: str, visible: str) -> dict[str, str]:
    """Return the extra environment variables of a device's worker; CUDA knows the device by the name `visible`.

    Memory and threads of the machine are divided equally, unless an operator has set them.
    """
    workers = len(settings.devices)
    memory = settings.worker_memory_bytes or memory_bytes() // workers
    variables = {OWN: device, VISIBLE: visible, "SECATEUR_WORKER_MEMORY_BYTES": str(memory)}
    if settings.device is None:
        # A missing device has to be an error; the job must not fall back to the CPU.
        variables["SECATEUR_DEVICE"] = CUDA.name
    if settings.threads is None and "OMP_NUM_THREADS" not in os.environ:
        variables["SECATEUR_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // workers))
    return variables


class DeviceWorker:
    """Worker of one device, which is restarted if it ends or hangs."""

    def __init__(self, settings: Settings, device: str) -> None:
        self._settings = settings
        self._device = device
        known = ask(device)
        self._visible = device if known is None or known.uuid is None else known.uuid
        self._name = alive.worker_name(device)
        self._process: ChildProcess | None = None
        self._started_at = 0.0

    def keep_running(self) -> None:
        """Start the worker if none runs, and end it if it hangs.

        A worker that never gave a sign of life would hang again, so it is left alone.
        """
        if self._process is None:
            if time.monotonic() >= self._started_at + RESTART_SECONDS or not self._started_at:
                self._start()
            return
        silent = alive.seconds_silent(self._name, self._settings)
        if not self._process.is_running():
            self._end(f"ended with exit code {self._process.exit_code}")
        elif alive.longest_silence(self._name, self._settings) < silent < float("inf"):
            self._end(f"stood still for {silent:.0f} s")

    def drain(self) -> None:
        """Ask the worker to give its job back and to end."""
        if self._process is not None:
            self._process.send(signal.SIGTERM)

    def has_ended(self) -> bool:
        return self._process is None or not self._process.is_running()

    def close(self) -> None:
        """End the process and its group, whatever its state."""
        if self._process is not None:
            self._process.end()

    def _start(self) -> None:
        alive.forget(self._name, self._settings)  # remove the sign of life of an earlier worker
        self._started_at = time.monotonic()
        environment = {**os.environ, **worker_environment(self._settings, self._device, self._visible)}
        command = worker_command(self._settings, self._device)
        self._process = spawn(command, name=self._name, stderr=subprocess.STDOUT, environment=environment)
        logger.info("worker started", device=self._device, pid=self._process.pid)

    def _end(self, reason: str) -> None:
        assert self._process is not None
        self._process.end()
        self._process = None
        logger.warning("worker of one device starts anew", device=self._device, reason=reason)


def run_workers(settings: Settings, stop: threading.Event) -> None:
    """Keep a worker for each device running until `stop` is set; return when all have drained."""
    workers = [DeviceWorker(settings, device) for device in settings.devices]
    try:
        while not stop.wait(LOOK_SECONDS):
            alive.touch(alive.WORKER, settings)
            for worker in workers:
                worker.keep_running()
        for worker in workers:
            worker.drain()
        while not all(worker.has_ended() for worker in workers):
            alive.touch(alive.WORKER, settings)
            time.sleep(LOOK_SECONDS)
    finally:
        for worker in workers:
            worker.close()
