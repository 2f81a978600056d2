"""Nodes of a fleet, and a team that submits to it."""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs import queue, service
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.hub_lookup import HubLookup
from core.service.jobs.schemas import JobBody
from core.settings import Settings
from core.storage import open_store
from tests.worker.conftest import Queue
from worker.supervisor.supervisor import Supervisor

STAND_IN = (sys.executable, "-m", "tests.worker.stand_in_runner", "{}")


class Fleet:
    """Nodes that share a database and a store, and one user."""

    def __init__(self, settings: Settings, sessions: sessionmaker[Session], team: str, folder: Path) -> None:
        self._settings, self._sessions, self._team, self._folder = settings, sessions, team, folder
        self.queue = Queue(sessions, open_store(settings), settings, team)

    def submit(self, **body: Any) -> str:
        parsed = JobBody.model_validate(body)
        lookup = HubLookup(self._settings, self._sessions)
        found = lookup.of(self._team, parsed)
        with transaction(self._sessions) as session:
            context = RequestContext(session, self._team, self.queue.store, self._settings, found)
            return service.submit(context, parsed).id

    def work(self, node: str, runner: Sequence[str] = STAND_IN) -> str:
        """Run one job on a node, whose disk no other has."""
        settings = self._settings.model_copy(update={"home": self._folder / node})
        with transaction(self._sessions) as session:
            claim = queue.claim(session, queue="default", worker_id=node, lease_seconds=60)
        assert claim is not None
        stop = threading.Event()
        supervisor = Supervisor(settings, self._sessions, open_store(settings), stop=stop, runner=runner)
        return str(supervisor.run(claim))

    def wrote(self, job_id: str) -> bool:
        """Return whether the model was made to write text."""
        return any("has written" in line for line in self.queue.logs(job_id))
