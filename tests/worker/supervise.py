"""A worker without Celery, as a process: `python -m tests.worker.supervise SETTINGS BEHAVIOUR`.

Claims once, runs what it got with the stand-in runner, and prints the end (`nothing` where there was no job). SIGTERM
drains it, as it does a pool's process.
"""

import signal
import sys
import threading
from collections.abc import Sequence

from sqlalchemy.orm import Session, sessionmaker

from core.database import session_factory, transaction
from core.service.jobs import queue
from core.settings import Settings
from core.storage import open_store
from worker.supervisor.supervisor import Supervisor


def runner(behaviour: str) -> Sequence[str]:
    return (sys.executable, "-m", "tests.worker.stand_in_runner", behaviour)


def run_once(
    settings: Settings, sessions: sessionmaker[Session], behaviour: str, stop: threading.Event, worker_id: str
) -> str:
    with transaction(sessions) as session:
        claim = queue.claim(session, queue="default", worker_id=worker_id, lease_seconds=settings.lease_seconds)
    if claim is None:
        return "nothing"
    store = open_store(settings)
    return Supervisor(settings, sessions, store, stop=stop, runner=runner(behaviour)).run(claim)


def main() -> None:
    settings = Settings.model_validate_json(sys.argv[1])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    sessions = session_factory(settings)
    print(run_once(settings, sessions, sys.argv[2], stop, "a process"), flush=True)
    sessions.kw["bind"].dispose()


if __name__ == "__main__":
    main()
