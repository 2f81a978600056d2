"""A model that nobody listed, and a worker that discovers by hand."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.discoveries.tables import DiscoveryRow
from core.service.discoveries.versions import note_version
from core.service.jobs.resolution.context import ServiceContext
from core.service.jobs.resolution.hub_lookup import HubLookup
from core.service.jobs.tables import JobRow
from core.service.jobs.undiscovered import resolve_awaiting
from core.service.sweeps.advance import advance_sweeps
from core.settings import Settings
from core.storage import Store
from tests.model_folders import write_alien
from worker.supervisor.discoverer import Discoverer

CHILD = Path(__file__).with_name("child.py")


@dataclass
class Fleet:
    """A worker and a dispatcher of one team's service, moved forward by hand."""

    sessions: sessionmaker[Session]
    settings: Settings
    store: Store
    hints: list[str]

    def look(self, what: str = "finds", *arguments: str, **changes: Any) -> bool:
        """Take the next discovery, with the stand-in doing `what`."""
        settings = self.settings.model_copy(update=changes)
        discoverer = Discoverer("worker_test", settings, command=[sys.executable, str(CHILD), what, *arguments])
        return discoverer.take_next(self.sessions)

    def resolve(self) -> int:
        """Do the dispatcher's duty; no time passes between two looks."""
        with transaction(self.sessions) as session:
            for job in session.scalars(select(JobRow).where(JobRow.awaits_discovery.is_not(None))):
                job.dispatched_at = None

        def send(job_id: str, queue: str) -> None:
            self.hints.append(job_id)

        return resolve_awaiting(self.context, send_hint=send)

    def advance(self) -> int:
        """Take sweeps as far as they go; return how many jobs they queued."""
        return advance_sweeps(self.context, send_hint=lambda job_id, queue: None)

    @property
    def context(self) -> ServiceContext:
        hub = HubLookup(self.settings, self.sessions)
        return ServiceContext(self.sessions, self.store, self.settings, hub)

    def row(self) -> DiscoveryRow:
        with transaction(self.sessions) as session:
            return session.scalars(select(DiscoveryRow)).one()


@pytest.fixture
def fleet(sessions: sessionmaker[Session], settings: Settings, store: Store) -> Fleet:
    """A fleet with a version of the library: the one that is installed."""
    fleet = Fleet(sessions, settings, store, [])
    assert not fleet.look(), "it has nothing to do, and says so with its version"
    return fleet


@pytest.fixture
def alien(settings: Settings) -> Path:
    """Its config has a number that no JSON of a database has."""
    return write_alien(settings.models_root / "alien", time_step_limit=[0.0, math.inf]).absolute()


NoteVersion = Callable[[str, str], None]


@pytest.fixture
def note(sessions: sessionmaker[Session]) -> NoteVersion:
    def write(queue: str, version: str) -> None:
        with transaction(sessions) as session:
            note_version(session, queue, version)

    return write
