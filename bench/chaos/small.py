"""A small installation for one directed fault: everything real and of this tree, but no Redis and one API process.

PostgreSQL, an S3 service and the API run within or below this process, the dispatcher and each worker as processes of
their own, which can be frozen and killed with all they started.
"""

import os
import secrets
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3
import psutil
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from bench.chaos.installation import Installation
from bench.chaos.receiver import Receiver
from core.database import migrate, session_factory, transaction
from core.service.teams.bootstrap import create_team
from core.service.teams.keys import create_key
from core.settings import Settings
from tests.serving import lent_app, served
from worker.embedded.postgres import postgres
from worker.embedded.serve import part_commands
from worker.processes import ChildProcess, spawn

LEASE_SECONDS = 6.0
_SECRET = "a secret for chaos"


class Store:
    """An S3 service in threads of this process. `on_stored` is called with the key of every object once it is there,
    before whoever wrote it learns so.
    """

    def __init__(self) -> None:
        self.on_stored: Callable[[str], None] = lambda key: None
        self.bucket = f"secateur-{secrets.token_hex(4)}"  # one of its own: all of a process share what is stored
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[str]:
        self._thread.start()
        try:
            boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                aws_access_key_id="access",
                aws_secret_access_key="secret",
                region_name="us-east-1",
            ).create_bucket(Bucket=self.bucket)
            yield self.endpoint
        finally:
            self._server.shutdown()
            self._thread.join()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        answer = list(self._moto(environ, start_response))
        if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].startswith(f"/{self.bucket}/"):
            self.on_stored(environ["PATH_INFO"].removeprefix(f"/{self.bucket}/"))
        return answer


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Nobody reads of the thousands of requests of a run."""


class Small:
    """Held as a context. `installation` is what the checker and clients know of it."""

    def __init__(self, folder: Path, teams: tuple[str, ...] = ("gardeners",)) -> None:
        self.run_id = uuid.uuid4().hex
        self.store = Store()
        self.installation: Installation
        self.receiver = Receiver(folder / "hooks")
        self._folder = folder.resolve()
        self._teams = teams
        self._parts: dict[str, ChildProcess] = {}
        self._cleanup = ExitStack()
        self._settings: Settings

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @property
    def pids(self) -> list[int]:
        """Of what should run."""
        return [part.pid for part in self._parts.values()]

    def start(self, name: str) -> None:
        """Start `dispatcher` or `worker-N`, as any installation does."""
        kind = name.partition("-")[0]
        home = self._folder / name
        home.mkdir(exist_ok=True)
        command = part_commands("", 0, self._settings)[kind]
        with open(self._folder / f"{name}.log", "ab") as log:
            self._parts[name] = spawn(
                [word.replace("worker@", f"{name}@") for word in command],
                name=name,
                stdout=log,
                stderr=subprocess.STDOUT,
                environment=self._environment(home),
            )

    def kill(self, name: str) -> None:
        self._parts.pop(name).end()

    def freeze(self, name: str) -> None:
        """SIGSTOP, to the process and all that it started."""
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, number: int) -> None:
        whole = psutil.Process(self._parts[name].pid)
        for process in (whole, *whole.children(recursive=True)):
            process.send_signal(number)

    def _start(self) -> None:
        enter = self._cleanup.enter_context
        self._folder.chmod(0o755)  # as root PostgreSQL runs as another user
        url = enter(postgres(self._folder / "postgres"))
        enter(self.receiver)
        endpoint = enter(self.store.running())
        self._settings = Settings.model_validate(
            {
                "home": self._folder / "api",
                "database_url": url,
                "secret_key": _SECRET,
                "store_url": f"s3://{self.store.bucket}",
                "store_endpoint": endpoint,
                "store_region": "us-east-1",
                "store_access_key": "access",
                "store_secret_key": "secret",
                "presigned_seconds": 0,
                "webhook_allowed_networks": "127.0.0.0/8",
                "worker_fresh_seconds": 20,
            }
        )
        migrate(self._settings)
        sessions = session_factory(self._settings)
        keys = {}
        with transaction(sessions) as session:
            for name in self._teams:
                team = create_team(session, name)
                made = create_key(session, team, role="admin", name="chaos", expires_at=None, secret=_SECRET.encode())
                keys[name] = made.key
        sessions.kw["bind"].dispose()
        api = enter(served(enter(lent_app(self._settings))))
        self._cleanup.callback(self._end_parts)
        self.start("dispatcher")
        self.installation = Installation(
            folder=self._folder,
            apis=(api,),
            admin_keys=keys,
            hooks=self.receiver.url,
            received=self.receiver.received,
            store_endpoint=endpoint,
            bucket=self.store.bucket,
            store_access_key="access",
            store_secret_key="secret",
            database_url=url,
        )

    def _end_parts(self) -> None:
        for name in list(self._parts):
            self.thaw(name)
            self.kill(name)

    def _environment(self, home: Path) -> dict[str, str]:
        given = self._settings.model_dump(mode="json", exclude_unset=True)
        own = {f"SECATEUR_{name.upper()}": str(value) for name, value in given.items() if value is not None}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}
        quick = {
            "SECATEUR_HOME": str(home),
            "SECATEUR_STORE_SECRET_KEY": "secret",
            "SECATEUR_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "SECATEUR_LEASE_SECONDS": str(LEASE_SECONDS),
            "SECATEUR_LEASE_RENEW_SECONDS": "1",
            "SECATEUR_DISPATCH_INTERVAL_SECONDS": "0.5",
            "SECATEUR_WORKER_POLL_SECONDS": "1",
            "SECATEUR_RETRY_DELAY_SECONDS": "0",
            "SECATEUR_ORPHAN_SECONDS": "3",
            "SECATEUR_ORPHAN_SWEEP_SECONDS": "2",
            "SECATEUR_WEBHOOK_RETRY_DELAYS": "1,1,2,2,4,4,8,8",
            "SECATEUR_DISK_WATERMARK_BYTES": "1000000",
            "OMP_NUM_THREADS": "1",
            "CHAOS_RUN": self.run_id,
        }
        return kept | own | quick
