"""Hints: messages that tell a queue's workers to look for jobs. Losing any of them loses nothing.

Few of them wait anywhere: a sender first looks how many the queue holds.
"""

from collections.abc import Callable

import structlog
from celery import Celery
from prometheus_client import Counter
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.broker import PRUNE_TASK
from core.service.jobs.queue import HINTS_PER_QUEUE, hint_failed

HINTS = Counter("secateur_hints", "Hints of new jobs this process sent, and could not send.", ["outcome"])

log = structlog.get_logger()

SendHint = Callable[[str, str], None]
"""Function called with a job's id and queue, after the commit. Raises the broker's errors."""


class Hints:
    """Hints through a broker. A hint never expires: whoever takes it looks, and finds what was committed before."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def lying(self, queue: str) -> int:
        """Return how many hints lie in the broker for this queue, which no worker has taken."""
        with self._app.producer_or_acquire() as producer:
            return int(producer.channel.queue_declare(queue=queue).message_count)

    def memory(self) -> tuple[int, int] | None:
        """Return the bytes that Redis uses and may use (0: no limit); None of another broker."""
        with self._app.producer_or_acquire() as producer:
            client = getattr(producer.channel, "client", None)  # which Redis' channels alone have
            if client is None:
                return None
            memory = client.info("memory")
        return int(memory["used_memory"]), int(memory["maxmemory"])

    def send(self, job_id: str, queue: str, enough: int = HINTS_PER_QUEUE) -> None:
        """Send one, unless `enough` of them lie there: each of those is taken after this job's commit, and finds it."""
        if self.lying(queue) < enough:
            self._app.send_task(PRUNE_TASK, args=[job_id], queue=queue, ignore_result=True, retry=False)


def hint_sender(app: Celery) -> SendHint:
    return Hints(app).send


def hint_or_note(send_hint: SendHint, factory: sessionmaker[Session], job_id: str, queue: str) -> None:
    """Send a hint; where the broker is down, leave a note for the dispatcher instead of failing."""
    try:
        send_hint(job_id, queue)
        HINTS.labels("sent").inc()
    except Exception as error:  # whatever a transport raises: the job is safe in the database
        HINTS.labels("failed").inc()
        log.warning("hint not sent", job=job_id, queue=queue, error=str(error))
        with transaction(factory) as session:
            hint_failed(session, job_id)
