"""Hints: messages that tell a queue's workers to look for jobs. A lost hint loses no job.

Few hints wait in the broker: a sender first checks how many the queue holds.
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
    """Sender of hints through a broker.

    A hint never expires: its receiver finds all jobs that were committed before it was sent.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    def count_waiting(self, queue: str) -> int:
        """Return the number of this queue's hints in the broker that no worker has taken."""
        with self._app.producer_or_acquire() as producer:
            return int(producer.channel.queue_declare(queue=queue).message_count)

    def memory(self) -> tuple[int, int] | None:
        """Return the bytes that Redis uses and its limit (0: none); None for another broker."""
        with self._app.producer_or_acquire() as producer:
            client = getattr(producer.channel, "client", None)  # Only channels of Redis have this method.
            if client is None:
                return None
            memory = client.info("memory")
        return int(memory["used_memory"]), int(memory["maxmemory"])

    def send(self, job_id: str, queue: str, enough: int = HINTS_PER_QUEUE) -> None:
        """Send a hint, unless `enough` hints are waiting: a worker that takes one of them finds this job too."""
        if self.count_waiting(queue) < enough:
            self._app.send_task(PRUNE_TASK, args=[job_id], queue=queue, ignore_result=True, retry=False)


def hint_sender(app: Celery) -> SendHint:
    return Hints(app).send


def hint_or_note(send_hint: SendHint, factory: sessionmaker[Session], job_id: str, queue: str) -> None:
    """Send a hint; if the broker is down, record that for the dispatcher instead of failing."""
    try:
        send_hint(job_id, queue)
        HINTS.labels("sent").inc()
    except Exception as error:  # A transport may raise any error; the job is safe in the database.
        HINTS.labels("failed").inc()
        log.warning("hint not sent", job=job_id, queue=queue, error=str(error))
        with transaction(factory) as session:
            hint_failed(session, job_id)
