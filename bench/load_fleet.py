"""The processes of a load run: PostgreSQL, Redis, an API, a dispatcher and workers, as in production but for the method
that does nothing. All are started, ended and killed from the thread that owns the fleet.
"""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import redis
from sqlalchemy.orm import Session, sessionmaker

from bench.parts import free_port, installed, until, without_settings
from bench.pooler import configure_pooler, pooled_url
from core.database import migrate, session_factory, transaction
from core.engine.architectures.describe import inspect_folder
from core.service.registry.schemas import ModelBody
from core.service.registry.service import read_model, register_model
from core.service.teams.bootstrap import create_team
from core.service.teams.keys import create_key
from core.settings import Settings
from tests.model_folders import write_llama
from worker.embedded.postgres import start_postgres, stop_postgres
from worker.processes import ChildProcess, spawn

QUICK = {
    "SECATEUR_DISPATCH_INTERVAL_SECONDS": "1",
    "SECATEUR_HINT_STALE_SECONDS": "5",
    "SECATEUR_LEASE_SECONDS": "8",
    "SECATEUR_LEASE_RENEW_SECONDS": "2",
    "SECATEUR_DISK_WATERMARK_BYTES": "1000000",
}
"""Losses are noticed in seconds rather than a minute; everything else is as it comes."""
MODEL = "tiny"


class Fleet:
    """Held as a context; `folder` takes everything. `pooled`: workers and dispatcher reach PostgreSQL through
    PgBouncer, which lends connections for a transaction at a time; the API, which listens, reaches it directly.
    `database_url`: a database that is there, in place of a server of its own.
    """

    def __init__(self, folder: Path, workers: int, *, pooled: bool = False, database_url: str | None = None) -> None:
        self.folder = folder.resolve()
        self.api_port, self.redis_port, self._pooler_port = free_port(), free_port(), free_port()
        self._pooled = pooled
        self._database_url = database_url
        self._workers = workers
        self._parts: dict[str, ChildProcess] = {}
        self._cleanup = ExitStack()
        self.settings = Settings()  # replaced once there is a database
        self.sessions: sessionmaker[Session]

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._database_url is None:
            self._cleanup.callback(stop_postgres, self._data)
        self._cleanup.callback(self.end_all)
        self.connect(self._database_url or start_postgres(self._data))
        self.start_redis()
        migrate(self.settings)
        self.start_service()
        return self

    def connect(self, url: str) -> None:
        """Take a database, which may have no schema yet."""
        self.settings = Settings(
            home=self.folder / "home",
            database_url=url,
            broker_url=f"redis://127.0.0.1:{self.redis_port}/0",
            secret_key="a secret for a load run",
        )
        self.sessions = session_factory(self.settings)
        self._cleanup.callback(self.sessions.kw["bind"].dispose)

    def start_service(self) -> None:
        """Start an API, a dispatcher and the workers, and wait until they are ready."""
        if self._pooled:
            configure_pooler(self.folder, self.settings.database_url or "", self._pooler_port, connections=3)
            self.start("pooler")
        self.start("api")
        self.start("dispatcher")
        for number in range(self._workers):
            self.start(f"worker-{number}")
        ready = "can_run" if self._workers else "can_accept"
        until(lambda: httpx.get(f"{self.url}/readyz", timeout=5).json()[ready], 180)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def _data(self) -> Path:
        return self.folder / "postgres"

    def keys(self, teams: int, clients: int) -> list[str]:
        """A member's key for each client, whose team has the model; clients are spread over the teams."""
        folder = write_llama(self.settings.models_root / MODEL)
        (self.folder / "model.json").write_text(inspect_folder(folder).model_dump_json())
        made = []
        with transaction(self.sessions) as session:
            for number in range(teams):
                team = create_team(session, f"team-{number}")
                body = ModelBody(name=MODEL, path=str(folder.resolve()))
                register_model(session, team, read_model(body, self.settings))
                made.append(team)
            secret = (self.settings.secret_key or "").encode()
            return [
                create_key(
                    session, made[number % teams], role="member", name="load", expires_at=None, secret=secret
                ).key
                for number in range(clients)
            ]

    def start(self, name: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self._parts[name] = spawn(
                self._command(name),
                name=name,
                stdout=log,
                stderr=subprocess.STDOUT,
                environment=self._environment(name),
            )

    def kill(self, name: str) -> None:
        """Kill -9, and all that goes with it."""
        self._parts.pop(name).end()

    def is_running(self, name: str) -> bool:
        return self._parts[name].is_running()

    @property
    def names(self) -> list[str]:
        """Names of the processes that were started."""
        return list(self._parts)

    def end_all(self) -> None:
        """Killed: every job has ended, and nothing here is kept."""
        for part in self._parts.values():
            part.end()
        self._parts.clear()

    def start_redis(self) -> None:
        self.start("redis")
        until(lambda: self.redis().ping(), 20)

    def redis(self) -> "redis.Redis":
        return redis.Redis(port=self.redis_port)

    def _command(self, name: str) -> list[str]:
        celery = [sys.executable, "-m", "celery", "--quiet", "--app", "tests.load.noop_worker", "worker"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
        match name.partition("-")[0]:
            case "redis":
                options = ["--port", str(self.redis_port), "--dir", str(self.folder), "--appendonly", "yes"]
                return [installed("redis-server"), *options]
            case "api":
                uvicorn = [sys.executable, "-m", "uvicorn", "--factory", "tests.load.noop_api:create_app"]
                return [*uvicorn, "--port", str(self.api_port), "--log-level", "warning", "--no-access-log"]
            case "pooler":
                return [installed("pgbouncer"), str(self.folder / "pgbouncer.ini")]
            case "dispatcher":
                return [sys.executable, "-m", "worker.dispatcher"]
            case _:
                aside = ["nice", "-n", "10"]  # in production workers have machines of their own
                return [*aside, *celery, *quiet, "--concurrency", "1", "--hostname", f"{name}@%h"]

    def _environment(self, name: str) -> dict[str, str]:
        assert self.settings.database_url and self.settings.broker_url and self.settings.secret_key
        database_url = self.settings.database_url
        if self._pooled and name != "api":
            database_url = pooled_url(database_url, self._pooler_port)
        return {
            **without_settings(),
            "SECATEUR_HOME": str(self.settings.home),
            "SECATEUR_DATABASE_URL": database_url,
            "SECATEUR_BROKER_URL": self.settings.broker_url,
            "SECATEUR_SECRET_KEY": self.settings.secret_key,
            "LOAD_FOLDER": str(self.folder),
            **QUICK,
        }
