"""Processes that are started again whenever they end, as a container's `restart: unless-stopped` does it, and ways
between them and what they depend on, which can fall silent: no byte, no end, no refusal.
"""

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import psutil

from bench.parts import until
from worker.embedded.postgres import is_running, start_postgres, stop_postgres
from worker.processes import ChildProcess, spawn

LOOK_SECONDS = 0.05
RESTART_SECONDS = 0.2
UP_SECONDS = 150
RUNNER = "secateur-runner"
RUNNER_SERVER = "worker.runner.forking_process"


class Part:
    """A process by name, kept by a thread of its own, with whose end it would end. `variables` are what its next start
    has in its environment besides. Whoever stops it holds `alone`.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.variables: dict[str, str] = {}
        self.alone = threading.RLock()
        self._command = command
        self._environment = environment
        self._log = log
        self._wanted = threading.Event()
        self._closed = False
        self._lock = threading.Lock()
        self._process: ChildProcess | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """None while it is down."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Have it run from now on, and wait until it does."""
        self._wanted.set()
        until(lambda: self.pid, UP_SECONDS)

    def kill(self) -> None:
        """Kill the process itself: what it started has to notice. It comes again; wait for that."""
        before = self.pid
        self._send(signal.SIGKILL)
        until(lambda: self.pid not in (None, before), UP_SECONDS)

    def stop(self, grace_seconds: float) -> None:
        """End it, and have it stay away: asked to, and killed with its group where it has not ended in time."""
        self._wanted.clear()
        self._send(signal.SIGTERM)
        with suppress(TimeoutError):
            until(lambda: self.pid is None, grace_seconds)
        with self._lock:
            if self._process is not None:
                self._process.send_group(signal.SIGKILL)
        until(lambda: self.pid is None, UP_SECONDS)

    def close(self) -> None:
        """Kill it for good."""
        self._closed = True
        self.stop(0)
        self._wanted.set()  # lets the keeper see that it is over
        self._thread.join()

    def _send(self, number: signal.Signals) -> None:
        with self._lock:
            if self._process is not None:
                self._process.send(number)

    def _keep(self) -> None:
        while True:
            self._wanted.wait()
            if self._closed:
                return
            own = {**self._environment, **self.variables}
            with open(self._log, "ab") as log:
                process = spawn(self._command, name=self.name, stdout=log, stderr=subprocess.STDOUT, environment=own)
            self._process = process
            while process.is_running():
                time.sleep(LOOK_SECONDS)
            with self._lock:
                process.end()
                self._process = None
            time.sleep(RESTART_SECONDS)


class Database:
    """The embedded PostgreSQL. It is started from a thread that lives as long as this, since it ends with that thread.
    Whoever stops it holds `alone`.
    """

    def __init__(self, data: Path) -> None:
        self.alone = threading.RLock()
        self._data = data
        self._starter = ThreadPoolExecutor(1)

    def start(self) -> str:
        """Return its URL once it can be asked."""
        return self._starter.submit(start_postgres, self._data).result(UP_SECONDS)

    def stop_fast(self) -> None:
        stop_postgres(self._data)

    def stop_at_once(self) -> None:
        """Have it drop everything: it recovers at its next start."""
        psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0])).send_signal(signal.SIGQUIT)
        until(lambda: not is_running(self._data), UP_SECONDS)

    def close(self) -> None:
        self.stop_fast()
        self._starter.shutdown()


def children(pid: int) -> list[int]:
    """Return the direct ones, in the order of birth; quickly, for a stage may last some hundredths of a second."""
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in _text(task / "children").split()]
    return []


def runners(pool: int) -> list[int]:
    """Return the runners of the job of a worker's pool process: none while it has no job."""
    forked = [child for server in runner_servers(pool) for child in children(server)]
    return [child for child in forked if _text(Path(f"/proc/{child}/comm")).strip() == RUNNER]


def runner_servers(pool: int) -> list[int]:
    """Return the process that runners of a worker's pool process are forked from, if it has started."""
    return [child for child in children(pool) if RUNNER_SERVER in _text(Path(f"/proc/{child}/cmdline"))]


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


_CHUNK_BYTES = 2**16


class Wire(ThreadingTCPServer):
    """Passes what comes to a socket file or a port of loopback, from a port of its own until it is closed. Where the
    server is away, a connection ends at once.
    """

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, target: Path | int) -> None:
        super().__init__(("127.0.0.1", 0), BaseRequestHandler)
        self.port = int(self.server_address[1])
        self._target = target
        self._passes = threading.Event()
        self._passes.set()
        self._old: set[socket.socket] = set()
        """Both ends of connections that were made while all passed."""
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def fall_silent(self) -> None:
        """Hold every byte, and every end, of the connections there are and of new ones."""
        self._passes.clear()

    def heal(self) -> None:
        """Drop the connections that were there when it fell silent; those made since go on."""
        _end(*self._old)
        self._passes.set()

    def close(self) -> None:
        self.heal()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._passes.wait()
        with suppress(OSError), self._reach() as theirs:
            ends = {request, theirs}
            self._old |= ends
            try:
                back = threading.Thread(target=self._pump, args=(theirs, request), daemon=True)
                back.start()
                self._pump(request, theirs)
                back.join()
            finally:
                self._old -= ends

    def _reach(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._target))
        except OSError:
            server.close()
            raise
        return server

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        """Pass bytes one way; where that ends, both ways end."""
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                self._passes.wait()
                target.sendall(data)
        self._passes.wait()
        _end(source, target)


def _end(*connections: socket.socket) -> None:
    for each in connections:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
