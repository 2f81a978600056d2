"""Hints: messages that tell a queue's workers to look. Losing any of them loses nothing."""

from collections.abc import Callable

import structlog
from celery import Celery
from prometheus_client import Counter
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.jobs.broker import PRUNE_TASK
from core.jobs.queue import hint_failed

HINTS = Counter("secateur_hints", "Hints of new jobs this process sent, and could not send.", ["outcome"])

log = structlog.get_logger()

SendHint = Callable[[str, str], None]
"""Called with a job's id and queue, after the commit. Raises whatever the broker raises."""


def hint_sender(app: Celery, expires_seconds: float) -> SendHint:
    """Sends through a broker. A hint nobody took in `expires_seconds` is dropped: by then it was sent again."""

    def send_hint(job_id: str, queue: str) -> None:
        app.send_task(PRUNE_TASK, args=[job_id], queue=queue, expires=expires_seconds, ignore_result=True, retry=False)

    return send_hint


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
