"""Names of the queues that a job may use."""

from sqlalchemy.orm import Session

from core.service.jobs.queue import served_queues
from core.settings import Settings
from core.validation import nearest_hint
from secateur_wire.errors import UnknownQueue


def require_queue(session: Session, name: str, settings: Settings) -> None:
    """Require that the queue is configured, or that a worker serves it; raises UnknownQueue."""
    known = {*settings.queues}
    if name in known:
        return
    known |= {*served_queues(session, settings.worker_fresh_seconds)}
    if name not in known:
        raise UnknownQueue(
            f"there is no queue {name!r}; there are: {', '.join(sorted(known))}{nearest_hint(name, known)}",
            param="queue",
        )
