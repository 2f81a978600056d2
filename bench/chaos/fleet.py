"""A whole installation on this machine: what docker-compose.yml runs, twice or four times over, as processes.

Every process is kept by `processes` and reaches PostgreSQL and Redis by wires of its own. Each worker's home is a small
disk of its own. All have the run's id in their environment as CHAOS_RUN, and as LC_CHAOS_RUN,
which passes on to runners: nothing but such names does.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import httpx
import psutil
import psycopg
from sqlalchemy import make_url

from bench.chaos.installation import (
    ACCESS_KEY,
    NOBODYS_QUEUE,
    OUTSIDERS,
    SECRET_KEY,
    Installation,
    Journal,
    make_keys,
)
from bench.chaos.processes import UP_SECONDS, Database, Part, Wire, children, runner_servers, runners
from bench.load_fleet import QUICK
from bench.parts import free_port, installed, until, without_settings
from core.database_url import libpq_url
from core.settings import Settings
from tests.production.files import compose, filled_in, image
from tests.webhooks.receiver import receiving
from worker.processes import run

TEAMS = ("gardeners", "foresters", OUTSIDERS)
PASSWORD = "a password of Redis"
SECRET = "a secret for a run of faults"
BUCKET = "secateur"
DISK_BYTES = 64 * 2**20
"""Size of each worker's home, about ten times the size of a tiny job."""
_SETTINGS = {
    **QUICK,
    "SECATEUR_WORKER_POLL_SECONDS": "2",
    "SECATEUR_WORKER_FRESH_SECONDS": "10",
    "SECATEUR_RETRY_DELAY_SECONDS": "1",
    "SECATEUR_DRAIN_SECONDS": "5",
    "SECATEUR_CANCEL_GRACE_SECONDS": "3",
    "SECATEUR_PEER_LOST_SECONDS": "8",
    "SECATEUR_RESUME_KEEP_SECONDS": "10",
    "SECATEUR_WORK_SWEEP_SECONDS": "5",
    "SECATEUR_UPLOAD_EXPIRY_SECONDS": "60",
    "SECATEUR_ORPHAN_SECONDS": "20",
    "SECATEUR_ORPHAN_SWEEP_SECONDS": "5",
    "SECATEUR_CACHE_MAX_BYTES": str(DISK_BYTES // 4),
    "SECATEUR_DATABASE_REQUEST_IDLE_SECONDS": "15",
    "SECATEUR_DATABASE_DISPATCHER_IDLE_SECONDS": "15",
    "SECATEUR_DATABASE_WORKER_IDLE_SECONDS": "15",
    "SECATEUR_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "SECATEUR_WEBHOOK_RETRY_DELAYS": ",".join(["1", "2", "4", *["8"] * 30]),
    "SECATEUR_WEBHOOK_TIMEOUT_SECONDS": "5",
    "SECATEUR_PRESIGNED_SECONDS": "0",
    "SECATEUR_QUEUES": f"default,{NOBODYS_QUEUE}",
    "SECATEUR_DEVICE": "cpu",
    "SECATEUR_THREADS": "1",
    "SECATEUR_BROKER_PASSWORD": PASSWORD,
    "SECATEUR_SECRET_KEY": SECRET,
    "SECATEUR_STORE_URL": f"s3://{BUCKET}",
    "SECATEUR_STORE_REGION": "us-east-1",
    "SECATEUR_STORE_ACCESS_KEY": ACCESS_KEY,
    "SECATEUR_STORE_SECRET_KEY": SECRET_KEY,
    "UVICORN_HOST": "127.0.0.1",
    "UVICORN_LOG_LEVEL": "warning",
    "OMP_NUM_THREADS": "1",
}
"""Environment of every service: losses are noticed and tried again within seconds; nothing leaves this machine."""


APIS: Final = ("api-0", "api-1")
DISPATCHERS: Final = ("dispatcher-0", "dispatcher-1")
WORKERS: Final = ("worker-0", "worker-1", "worker-2", "worker-3")
SERVICES: Final = (*APIS, *DISPATCHERS, *WORKERS)


class Fleet:
    """The processes run, and keep running, until `cleanup` is left; `folder` takes all of it and must be new."""

    def __init__(self, folder: Path, cleanup: ExitStack) -> None:
        self.folder = folder.resolve()
        self.run_id = secrets.token_hex(8)
        self.database = Database(self.folder / "postgres")
        self.wires: dict[str, Wire] = {}
        self.parts: dict[str, Part] = {}
        self.store_mood = self.folder / "store.mood"
        """File that names the mood of the store."""
        self._cleanup = cleanup
        self._ports = {name: free_port() for name in ("redis", "store", *APIS)}
        hooks = cleanup.enter_context(receiving())
        cleanup.callback(self.database.close)
        url = self._make_database()
        cleanup.callback(self._close)
        store = str(self._ports["store"])
        self._start("redis", self._redis())
        self.store_mood.write_text("well")
        self._start("store", [sys.executable, "-m", "bench.chaos.store", store, str(self.store_mood)])
        until(lambda: httpx.get(f"http://127.0.0.1:{store}/", timeout=5), UP_SECONDS)
        postgres = Path(str(make_url(url).query["host"])) / ".s.PGSQL.5432"
        for name in SERVICES:
            self.wires[f"{name}:postgres"] = Wire(postgres)
            self.wires[f"{name}:redis"] = Wire(self._ports["redis"])
        self._prepare()
        self.installation = Installation(
            folder=self.folder,
            journal=Journal(self.folder / "journal.jsonl"),
            apis=tuple(f"http://127.0.0.1:{self._ports[name]}" for name in APIS),
            admin_keys=make_keys(Settings(database_url=url), TEAMS, SECRET),
            hooks=hooks,
            store_endpoint=f"http://127.0.0.1:{store}",
            bucket=BUCKET,
            database_url=url,
        )
        for name in SERVICES:
            self._start(name, self._command(name), self._variables(name))
        until(self.is_ready, UP_SECONDS)
        with self.installation.connect() as connection:
            wanted = [(len(WORKERS),)]
            until(lambda: connection.execute("SELECT count(*) FROM workers").fetchall() == wanted, UP_SECONDS)

    def worker_of(self, pid: int) -> str | None:
        """Name of the worker with this process id, as the database tells it; None where it has ended meanwhile."""
        return next((name for name in WORKERS if self.parts[name].pid == pid), None)

    def processes(self, target: str) -> list[psutil.Process]:
        """Return the processes of a part.

        For `worker-N` they are its parent and the pool's process; `worker-N/pool` is that one, and `worker-N/runner`
        the runner at work for a job, else the process it would be forked from, else the pool's process.
        """
        name, _, inner = target.partition("/")
        pid = self.parts[name].pid
        if pid is None:
            return []
        pools = children(pid) if name in WORKERS else []
        if inner == "runner":
            wanted = [each for pool in pools for each in runners(pool) or runner_servers(pool) or [pool]]
        else:
            wanted = pools if inner == "pool" else [pid, *pools]
        found = []
        for each in wanted:
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(each))
        return found

    def expected_pids(self) -> set[int]:
        """Return the ids of the processes that should run while no job does.

        One of each part, and of a worker also the pool's process and the one that runners are forked from.
        """
        pids = {pid for part in self.parts.values() if (pid := part.pid) is not None}
        pools = {process.pid for name in WORKERS for process in self.processes(f"{name}/pool")}
        return pids | pools | {server for pool in pools for server in runner_servers(pool)}

    def is_ready(self) -> bool:
        """Tell whether every API says that jobs can be run."""
        try:
            answers = [httpx.get(f"{url}/readyz", timeout=5) for url in self.installation.apis]
        except httpx.HTTPError:
            return False
        return all(answer.status_code == 200 and answer.json()["can_run"] for answer in answers)

    def _close(self) -> None:
        for part in reversed(self.parts.values()):
            part.close()
        for wire in self.wires.values():
            wire.close()

    def _make_database(self) -> str:
        """Set PostgreSQL up as docker-compose.yml does; it need not outlive a machine, so it waits for no disk."""
        url = self.database.start()
        words = compose()["services"]["postgres"]["command"]
        options = dict(word.split("=") for word in words if "=" in word)
        with psycopg.connect(libpq_url(url), autocommit=True) as connection:
            for name, value in {**options, "fsync": "off"}.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        self.database.stop_fast()
        return self.database.start()

    def _start(self, name: str, command: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Start a part, and keep it."""
        environment = {
            **without_settings(),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TMPDIR": str(self._made(f"{name}-tmp")),
            "CHAOS_RUN": self.run_id,
            "LC_CHAOS_RUN": self.run_id,
            **(variables or {}),
        }
        self.parts[name] = Part(name, command, environment, self.folder / f"{name}.log")
        self.parts[name].start()

    def _command(self, name: str) -> list[str]:
        kind = name.partition("-")[0]
        if kind == "dispatcher":
            return list(compose()["services"]["dispatcher"]["command"])
        if kind == "worker":
            self._mount(self._made(name))
            return ["nice", "-n", "10", *image(kind).command]  # in production workers have machines of their own
        return list(image(kind).command)

    def _variables(self, name: str) -> dict[str, str]:
        """Return the environment of a service; models and texts may lie anywhere in the fleet's folder."""
        postgres, redis = (self.wires[f"{name}:{end}"].port for end in ("postgres", "redis"))
        return {
            **_SETTINGS,
            "SECATEUR_HOME": str(self._made(name)),
            "SECATEUR_DATABASE_URL": f"postgresql+psycopg://postgres@127.0.0.1:{postgres}/postgres",
            "SECATEUR_BROKER_URL": f"redis://127.0.0.1:{redis}/0",
            "SECATEUR_STORE_ENDPOINT": f"http://127.0.0.1:{self._ports['store']}",
            "SECATEUR_ALLOWED_ROOTS": str(self.folder),
            **({"UVICORN_PORT": str(self._ports[name])} if name in self._ports else {}),
        }

    def _prepare(self) -> None:
        environment = {**os.environ, **self._variables(APIS[0])}
        command = [sys.executable, *compose()["services"]["prepare"]["command"][1:]]
        done = run(command, name="prepare", environment=environment)
        if done.returncode != 0:
            raise RuntimeError(f"The installation could not be prepared:\n{done.stdout}")

    def _redis(self) -> list[str]:
        said = [filled_in(word, {"REDIS_PASSWORD": PASSWORD}) for word in compose()["services"]["redis"]["command"]]
        own = ["--port", str(self._ports["redis"]), "--bind", "127.0.0.1", "--dir", str(self._made("redis"))]
        return [installed(said[0]), *said[1:], *own]

    def _mount(self, folder: Path) -> None:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"A worker's disk cannot be mounted, which only root may do: {done.stderr.strip()}")
        self._cleanup.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder
