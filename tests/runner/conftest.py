"""A service for each module, and workers in threads that claim once and start the product's own runner."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import session_factory, transaction
from core.pipeline.reports.how_to_run import ways_to_run
from core.pipeline.reports.report import Report
from core.service.jobs import queue
from core.service.jobs.tables import JobRow
from core.service.teams.bootstrap import create_team
from core.settings import Settings
from core.storage import LocalStore, Store, artifact_prefix, open_store
from secateur_wire.jobs import WayToRun
from secateur_wire.metrics import Metrics
from tests.conftest import settings_for
from tests.databases import fresh_database
from tests.runner.models import add_model, add_text
from tests.worker.conftest import Queue, impatient
from worker.supervisor.supervisor import Supervisor

Work = Callable[..., "Future[str]"]
Finish = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="module")
def settings(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with fresh_database(postgres_url) as url:
        yield at_once(settings_for(url, tmp_path_factory.mktemp("service") / "home"))


def at_once(settings: Settings) -> Settings:
    """Return the settings of workers that wait for nothing, and whose runners share the machine with other tests."""
    changed = {"threads": 1, "device": "cpu", "max_attempts": 5, "drain_seconds": 20.0}
    return impatient(settings).model_copy(update=changed)


@pytest.fixture(scope="module")
def sessions(settings: Settings) -> Iterator[sessionmaker[Session]]:
    factory = session_factory(settings)
    yield factory
    factory.kw["bind"].dispose()


@pytest.fixture(scope="module")
def store(settings: Settings) -> LocalStore:
    store = open_store(settings)
    assert isinstance(store, LocalStore)
    return store


@pytest.fixture(scope="module")
def team(sessions: sessionmaker[Session]) -> str:
    with transaction(sessions) as session:
        return create_team(session, "gardeners")


@pytest.fixture(scope="module")
def jobs(sessions: sessionmaker[Session], store: LocalStore, settings: Settings, team: str) -> Queue:
    return Queue(sessions, store, settings, team)


@pytest.fixture(scope="module")
def work(jobs: Queue) -> Work:
    """Claim once and run what was claimed, in a thread; `stop` drains it."""

    def start(stop: threading.Event | None = None) -> "Future[str]":
        return begin_work(jobs.settings, jobs.sessions, jobs.store, stop or threading.Event())

    return start


def shown_ways(jobs: Queue, job_id: str) -> list[WayToRun]:
    """The ways to run its artifact that the page of a finished job shows."""
    metrics = Metrics.model_validate(jobs.job(job_id).metrics)
    return ways_to_run(Report.model_validate(jobs.report(job_id)), metrics, jobs.artifact_names(job_id))


def begin_work(
    settings: Settings, sessions: sessionmaker[Session], store: Store, stop: threading.Event
) -> "Future[str]":
    """Claim once in a thread and run what was claimed with the product's own runner; return how it will have ended."""
    end: Future[str] = Future()

    def run() -> None:
        try:
            with transaction(sessions) as session:
                claim = queue.claim(session, queue="default", worker_id="a thread", lease_seconds=60)
            assert claim is not None
            end.set_result(Supervisor(settings, sessions, store, stop=stop).run(claim))
        except BaseException as error:
            end.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return end


@pytest.fixture(scope="module")
def finish(jobs: Queue, work: Work) -> Finish:
    """Submits a job and runs it to its good end; its id."""

    def run(body: dict[str, Any]) -> str:
        job_id = jobs.submit(body)
        assert work().result(120) == "succeeded", jobs.job(job_id).error
        return job_id

    return run


@pytest.fixture(autouse=True)
def _nothing_waits(jobs: Queue) -> Iterator[None]:
    """What a test leaves in the queue is not for the next one's worker."""
    yield
    with transaction(jobs.sessions) as session:
        for job_id in session.scalars(select(JobRow.id).where(JobRow.status == "queued")).all():
            queue.request_cancel(session, job_id)


def artifact(jobs: Queue, job_id: str) -> Path:
    """The folder that the newest attempt left."""
    assert isinstance(jobs.store, LocalStore)
    return jobs.store.folder(artifact_prefix(job_id, jobs.job(job_id).attempt))


def give_model(jobs: Queue, name: str, folder: Path) -> None:
    """Register a model for the jobs."""
    add_model(jobs.sessions, jobs.settings, jobs.team, name, folder)


def give_text(jobs: Queue, name: str, file: Path, kind: str = "text") -> None:
    """Register a text for the jobs, or what is in another format."""
    add_text(jobs.sessions, jobs.settings, jobs.team, name, file, kind)
