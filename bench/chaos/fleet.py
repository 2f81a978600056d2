"""A whole installation on this machine: what docker-compose.yml runs, twice or four times over, as processes.

Every process is kept by `keeping`, reaches PostgreSQL and Redis by wires of its own and the store by one gate. Each
worker's home is a small disk of its own. All have the run's id in their environment as CHAOS_RUN, and as LC_CHAOS_RUN,
which passes on to runners: nothing but such names does.
"""

import os
import secrets
import subprocess
import sys
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import httpx
import psutil
import psycopg
from sqlalchemy import make_url

from bench.chaos.bystanders import Bystanders
from bench.chaos.gate import Gate
from bench.chaos.installation import BYSTANDERS, OUTSIDERS, Installation
from bench.chaos.journal import Journal
from bench.chaos.keeping import UP_SECONDS, Database, Part, children, runner_servers, runners
from bench.chaos.outsiders import Outsiders
from bench.chaos.schedule import ALL, Services
from bench.chaos.variables import ACCESS_KEY, BUCKET, DISK_BYTES, PASSWORD, SECRET, SECRET_KEY, service_variables
from bench.chaos.wires import Network, Wire
from bench.parts import free_port, installed, until
from bench.pooler import configure_pooler
from core.database import session_factory, transaction
from core.database_url import libpq_url
from core.service.teams.bootstrap import create_team
from core.service.teams.keys import create_key
from core.settings import Settings
from tests.production.files import compose, filled_in, image
from worker.processes import run

_POOLED_CONNECTIONS = 8
TEAMS = ("gardeners", "foresters", BYSTANDERS, OUTSIDERS)


class Hooks(Protocol):
    """Receiver of webhooks, as faults and services know it."""

    @property
    def url(self) -> str: ...
    @property
    def received(self) -> Path: ...
    def hang(self, seconds: float) -> None: ...


class Fleet:
    """Held as a context, in which everything runs and keeps running; `folder` takes all of it and must be new.

    `is_pooled`: dispatchers and workers reach PostgreSQL through PgBouncer, APIs directly, since they listen.
    """

    def __init__(self, folder: Path, hooks: Hooks, services: Services = ALL, *, is_pooled: bool = False) -> None:
        self.services = services
        self.folder = folder.resolve()
        self.run_id = secrets.token_hex(8)
        self.hooks = hooks
        self.journal = Journal(self.folder / "journal.jsonl")
        self.database = Database(self.folder / "postgres")
        self.wires: dict[str, Wire] = {}
        self.parts: dict[str, Part] = {}
        self.gate: Gate
        self.installation: Installation
        self._is_pooled = is_pooled
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._enter()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @cached_property
    def bystanders(self) -> Bystanders:
        return Bystanders(self.installation, self.journal)

    @cached_property
    def outsiders(self) -> Outsiders:
        return Outsiders(self.installation, self.journal)

    def home(self, worker: str) -> Path:
        return self.folder / worker

    def worker_of(self, pid: int) -> str | None:
        """Name of the worker with this process id, as the database tells it; None where it has ended meanwhile."""
        return next((name for name in self.services.workers if self.parts[name].pid == pid), None)

    def processes(self, target: str) -> list[psutil.Process]:
        """Return the processes of a part.

        For `worker-N` they are its parent and the pool's process; `worker-N/pool` is that one, and `worker-N/job` the
        runner at work for a job, if there is one. `worker-N/runner` is it, else the process it would be forked from,
        else the pool's process.
        """
        name, _, inner = target.partition("/")
        pid = self.parts[name].pid
        if pid is None:
            return []
        pools = children(pid) if name in self.services.workers else []
        if inner == "job":
            wanted = [each for pool in pools for each in runners(pool)]
        elif inner == "runner":
            wanted = [each for pool in pools for each in runners(pool) or runner_servers(pool) or [pool]]
        else:
            wanted = pools if inner == "pool" else [pid, *pools]
        return [process for each in wanted if (process := _process(each)) is not None]

    def expected_pids(self) -> set[int]:
        """Return the ids of the processes that should run while no job does.

        One of each part, and of a worker also the pool's process and the one that runners are forked from.
        """
        pids = {pid for part in self.parts.values() if (pid := part.pid) is not None}
        pools = {process.pid for name in self.services.workers for process in self.processes(f"{name}/pool")}
        servers = {server for pool in pools for server in runner_servers(pool)}
        return pids | pools | servers

    def is_ready(self) -> bool:
        """Tell whether every API says that jobs can be run."""
        try:
            answers = [httpx.get(f"{url}/readyz", timeout=5) for url in self.installation.apis]
        except httpx.HTTPError:
            return False
        return all(answer.status_code == 200 and answer.json()["can_run"] for answer in answers)

    def _enter(self) -> None:
        network = self._cleanup.enter_context(Network())
        self._cleanup.callback(self.database.close)
        url = self._make_database()
        self._cleanup.callback(self._close_parts)
        ports = {name: free_port() for name in ("redis", "store", "hub", "pooler", *self.services.apis)}
        self._add("redis", _redis(ports["redis"], self._made("redis")))
        self._add("store", [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports["store"])])
        self._add("hub", [sys.executable, "-m", "bench.chaos.hub", str(ports["hub"]), str(self._made("hub"))])
        for name in ("redis", "store", "hub"):
            self.parts[name].start()
        until(lambda: httpx.get(f"http://127.0.0.1:{ports['store']}/", timeout=5), UP_SECONDS)
        self.gate = Gate(network, ports["store"])
        self._hub_port = ports["hub"]
        socket_file = Path(str(make_url(url).query["host"])) / ".s.PGSQL.5432"
        if self._is_pooled:
            settings = configure_pooler(self._made("pooler"), url, ports["pooler"], connections=_POOLED_CONNECTIONS)
            self._add("pooler", [installed("pgbouncer"), str(settings)])
            self.parts["pooler"].start()
        for name in self.services.all:
            is_direct = not self._is_pooled or name in self.services.apis
            self.wires[f"{name}:postgres"] = Wire(network, socket_file if is_direct else ports["pooler"])
            self.wires[f"{name}:redis"] = Wire(network, ports["redis"])
            self._add_service(name, ports.get(name))
        self._prepare()
        self.installation = Installation(
            folder=self.folder,
            apis=tuple(f"http://127.0.0.1:{ports[name]}" for name in self.services.apis),
            admin_keys=self._keys(url),
            hooks=self.hooks.url,
            received=self.hooks.received,
            store_endpoint=f"http://127.0.0.1:{ports['store']}",
            faulty_store_endpoint=f"http://127.0.0.1:{self.gate.port}",
            bucket=BUCKET,
            store_access_key=ACCESS_KEY,
            store_secret_key=SECRET_KEY,
            database_url=url,
        )
        for name in self.services.all:
            self.parts[name].start()
        until(self.is_ready, UP_SECONDS)
        with psycopg.connect(libpq_url(url), autocommit=True) as connection:
            until(lambda: _workers(connection) == len(self.services.workers), UP_SECONDS)

    def _close_parts(self) -> None:
        for part in reversed(self.parts.values()):
            part.close()

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

    def _add(self, name: str, command: list[str], variables: dict[str, str] | None = None) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}
        environment = {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TMPDIR": str(self._made(f"{name}-tmp")),
            "CHAOS_RUN": self.run_id,
            "LC_CHAOS_RUN": self.run_id,
            **(variables or {}),
        }
        self.parts[name] = Part(name, command, environment, self.folder / f"{name}.log")

    def _add_service(self, name: str, port: int | None) -> None:
        kind = name.partition("-")[0]
        if kind == "worker":
            self._mount(self._made(name))
        services = compose()["services"]
        command = services["dispatcher"]["command"] if kind == "dispatcher" else image(kind).command
        aside = ["nice", "-n", "10"] if kind == "worker" else []  # in production workers have machines of their own
        self._add(name, [*aside, *command], self._variables(name) | ({"UVICORN_PORT": str(port)} if port else {}))

    def _variables(self, name: str) -> dict[str, str]:
        return service_variables(
            self.folder,
            self._made(name),
            postgres_port=self.wires[f"{name}:postgres"].port,
            redis_port=self.wires[f"{name}:redis"].port,
            store_port=self.gate.port,
            hub_port=self._hub_port,
        )

    def _prepare(self) -> None:
        environment = {**os.environ, **self._variables(self.services.apis[0])}
        done = run(
            [sys.executable, *compose()["services"]["prepare"]["command"][1:]], name="prepare", environment=environment
        )
        if done.returncode != 0:
            raise RuntimeError(f"The installation could not be prepared:\n{done.stdout}")

    def _keys(self, url: str) -> dict[str, str]:
        sessions = session_factory(Settings(database_url=url))
        with transaction(sessions) as session:
            made = {
                team: create_key(
                    session,
                    create_team(session, team),
                    role="admin",
                    name="chaos",
                    expires_at=None,
                    secret=SECRET.encode(),
                ).key
                for team in TEAMS
            }
        sessions.kw["bind"].dispose()
        return made

    def _mount(self, folder: Path) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"A worker's disk cannot be mounted, which only root may do: {done.stderr.strip()}")
        self._cleanup.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder


def _redis(port: int, data: Path) -> list[str]:
    said = [filled_in(word, {"REDIS_PASSWORD": PASSWORD}) for word in compose()["services"]["redis"]["command"]]
    return [installed(said[0]), *said[1:], "--port", str(port), "--bind", "127.0.0.1", "--dir", str(data)]


def _workers(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM workers").fetchone()
    return row[0] if row else 0


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
