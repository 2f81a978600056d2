"""Jobs to run, and workers to run them."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import psutil
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.resume.kinds import BLOCK
from core.service.jobs import service
from core.service.jobs.hints import Hints
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.schemas import Job, JobBody
from core.service.jobs.states import LEASED
from core.service.jobs.tables import JobRow, WorkerRow
from core.settings import Settings
from core.storage import Store
from secateur_wire.jobs import JobEvent
from tests import small_disks
from tests.worker.forked_parts import fork_part
from tests.worker.redis_server import RedisServer, redis_running
from tests.worker.supervise import run_once
from worker.dispatcher.clock import DutyRun, return_expired_leases, send_due_hints
from worker.embedded.serve import part_commands, part_environment
from worker.processes import ChildProcess, spawn
from worker.runner.fork_server import PROCESS_NAME

Answer = TypeVar("Answer")


def eventually(look: Callable[[], Answer | None], seconds: float = 120) -> Answer:
    """What `look` gives once it gives something: at once as a rule, later on a machine that has much to do."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < seconds:
        if found := look():
            return found
        time.sleep(0.02 if waited < 2 else 0.05)  # a look may be a query: what takes long is asked for less often
    raise AssertionError(f"not within {seconds} s")


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Queue:
    """The queue of record as a test looks at it."""

    sessions: sessionmaker[Session]
    store: Store
    settings: Settings
    team: str

    def submit(self, body: dict[str, Any]) -> str:
        with transaction(self.sessions) as session:
            parsed = JobBody.model_validate(body)
            return service.submit(RequestContext(session, self.team, self.store, self.settings), parsed).id

    def job(self, job_id: str) -> Job:
        with transaction(self.sessions) as session:
            return service.get_job(session, self.team, job_id)

    def row(self, job_id: str) -> JobRow:
        with transaction(self.sessions) as session:
            return session.scalars(select(JobRow).where(JobRow.id == job_id)).one()

    def events(self, job_id: str) -> list[JobEvent]:
        with transaction(self.sessions) as session:
            return service.read_events(session, self.team, job_id, after=0, limit=1000).data

    def report(self, job_id: str) -> dict[str, Any]:
        with transaction(self.sessions) as session:
            return service.report_document(session, self.team, job_id)

    def logs(self, job_id: str) -> list[str]:
        return [str(event.data["message"]) for event in self.events(job_id) if event.type == "log"]

    def runner_pids(self, job_id: str, attempt: int = 1) -> list[int]:
        """Of the stand-in that hangs now, and of the helper it started; waits until it does."""

        def look() -> list[int] | None:
            for event in self.events(job_id):
                message = str(event.data.get("message"))
                if event.attempt == attempt and message.startswith("pids "):
                    return [int(word) for word in message.split()[1:]]
            return None

        return eventually(look)

    def succeeded(self, job_id: str, seconds: float = 120) -> Job:
        """The job once it has ended, and ended well."""

        def ended() -> Job | None:
            job = self.job(job_id)
            return job if job.finished_at is not None else None

        job = eventually(ended, seconds)
        assert job.status == "succeeded", job.error
        return job

    def end_lease(self, job_id: str) -> None:
        """As time would: so a lease can be long, and no worker that is held up for a moment loses its own."""
        with transaction(self.sessions) as session:
            past = update(JobRow).values(lease_expires_at=func.now() - timedelta(seconds=1))
            session.execute(past.where(JobRow.id == job_id, JobRow.status.in_(LEASED)))

    def artifact_names(self, job_id: str) -> set[str]:
        with transaction(self.sessions) as session:
            return {file.path for file in service.list_artifacts(session, self.team, job_id).data}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return impatient(settings)


def impatient(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "lease_seconds": 20.0,
            "lease_renew_seconds": 0.2,
            "cancel_grace_seconds": 2.0,
            "retry_delay_seconds": 0.0,
            "home": settings.home.resolve(),
        }
    )


@pytest.fixture
def jobs(sessions: sessionmaker[Session], store: Store, settings: Settings, team: str) -> Queue:
    return Queue(sessions, store, settings, team)


@dataclass
class Running:
    """A supervisor at work in a thread of this process."""

    stop: threading.Event
    end: "Future[str]"

    def result(self, seconds: float = 120) -> str:
        return self.end.result(seconds)


StartWorker = Callable[..., Running]


@pytest.fixture
def start_worker(settings: Settings, sessions: sessionmaker[Session]) -> Iterator[StartWorker]:
    """Starts a worker that claims once; its keyword arguments are the stand-in runner's behaviour."""
    started: list[tuple[threading.Thread, threading.Event]] = []

    def start(changed: Settings | None = None, **behaviour: Any) -> Running:
        stop = threading.Event()
        end: Future[str] = Future()

        def run() -> None:
            try:
                end.set_result(run_once(changed or settings, sessions, json.dumps(behaviour), stop, "a thread"))
            except BaseException as error:
                end.set_exception(error)

        thread = threading.Thread(target=run)
        thread.start()
        started.append((thread, stop))
        return Running(stop, end)

    yield start
    for thread, stop in started:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


SpawnWorker = Callable[..., ChildProcess]


@pytest.fixture
def spawn_worker(settings: Settings) -> Iterator[SpawnWorker]:
    """Starts a worker that claims once, as a process of its own."""
    started: list[ChildProcess] = []

    def start(changed: Settings | None = None, **behaviour: Any) -> ChildProcess:
        arguments = ((changed or settings).model_dump_json(), json.dumps(behaviour))
        command = (sys.executable, "-m", "tests.worker.supervise", *arguments)
        settings.home.mkdir(parents=True, exist_ok=True)
        with open(settings.home / "worker.log", "ab") as log:
            child = fork_part(command, name="worker", log=log, environment=os.environ, has_pipe=True)
        started.append(child)
        return child

    yield start
    for child in started:
        child.end(grace_seconds=0)


StartPart = Callable[..., ChildProcess]


@pytest.fixture
def start_part(settings: Settings) -> Iterator[StartPart]:
    """Starts `worker` or `dispatcher` with the command line that `secateur serve` uses, forked unless it is to be
    `executed`; with `stand_in`, its behaviour, the runner is the stand-in. At the end they are killed: Celery takes
    seconds to leave, and tests of how it does send the signal themselves.
    """
    started: list[ChildProcess] = []

    def start(
        name: str, stand_in: dict[str, Any] | None = None, *, executed: bool = False, **variables: str
    ) -> ChildProcess:
        settings.home.mkdir(parents=True, exist_ok=True)
        command = part_commands("127.0.0.1", 0, settings)[name]
        if stand_in is not None:
            command = ["tests.worker.stand_in_worker" if word == "worker.app" else word for word in command]
            variables = {"STAND_IN": json.dumps(stand_in), **variables}
        environment = {
            **os.environ,
            **part_environment(settings),
            "SECATEUR_CANCEL_GRACE_SECONDS": "2",
            **variables,
        }
        with open(settings.home / f"{name}.log", "ab") as log:
            if executed:
                part = spawn(command, name=name, stdout=log, stderr=subprocess.STDOUT, environment=environment)
            else:
                part = fork_part(command, name=name, log=log, environment=environment)
        started.append(part)
        return part

    yield start
    for part in started:
        part.end()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 256 MiB."""
    with (
        TemporaryDirectory(prefix="secateur-test-") as folder,
        small_disks.small_disk(Path(folder, "disk"), 2**28) as disk,
    ):
        yield disk


@dataclass(frozen=True)
class Held:
    """Behaviour of a stand-in runner that waits in `task`; a file in `folder` says that it may go on."""

    task: str
    folder: Path

    @property
    def behaviour(self) -> dict[str, str]:
        """The stand-in's behaviour, as it is given one."""
        return {"hang_in": self.task, "until": str(self._go_on)}

    def let_go(self) -> None:
        self._go_on.touch()

    @property
    def _go_on(self) -> Path:
        return self.folder / "go on"


class HintsSent(Hints):
    """A broker whose hints are taken at once."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def count_waiting(self, queue: str) -> int:
        return 0

    def send(self, job_id: str, queue: str, enough: int = 1) -> None:
        self.sent.append((job_id, queue))


def dispatched(jobs: Queue, settings: Settings) -> list[tuple[str, str]]:
    """Return the hints that a dispatcher sends after a look at leases."""
    hints = HintsSent()
    turn = DutyRun(jobs.sessions, settings)
    return_expired_leases(turn)
    send_due_hints(turn, hints)
    return hints.sent


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_running(tmp_path) as server:
        yield server


def saved_blocks(settings: Settings, job_id: str) -> list[int]:
    """Numbers of the blocks after which the first attempt saved its work and still has it."""
    return sorted(int(file.parent.name) for file in (settings.work_root / job_id / "attempt-1").glob(BLOCK.pattern))


def is_registered(jobs: Queue) -> bool:
    return worker_state(jobs) is not None


def worker_state(jobs: Queue) -> str | None:
    """Of the only worker, None while there is none."""
    with transaction(jobs.sessions) as session:
        return session.scalar(select(WorkerRow.state))


def runner_of(owner: int, module: str = "worker.runner") -> int | None:
    """The runner that a process has now, forked or executed as that module."""
    for process in psutil.Process(owner).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            is_it = module in process.cmdline()[:4] or (module == "worker.runner" and process.name() == PROCESS_NAME)
            if is_it and process.status() != psutil.STATUS_ZOMBIE:
                return process.pid
    return None
