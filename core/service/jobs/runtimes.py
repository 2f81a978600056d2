"""Forms of added files that the workers can write: as they report their runtimes, or else as past jobs show."""

from typing import Final

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from core.engine.exporters.registry import ADDED
from core.service.jobs.queue import workers_of
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.schemas import JobBody
from core.service.jobs.tables import JOB_EXPORTS, JobRow

_QUEUE: Final = str(JobBody.model_fields["queue"].default)
_NEWEST: Final = 100
"""Number of newest jobs that are read."""


def writable_forms(context: RequestContext) -> set[str]:
    """Return the added forms whose runtime every worker of the default queue has, as any of them may take a job.

    Where no worker reports its runtimes, they are the forms that the team's newest jobs wrote.
    """
    workers = workers_of(context.session, [_QUEUE], context.settings.worker_fresh_seconds)
    reported = [set(worker.runtimes) for worker in workers if worker.runtimes is not None]
    if not reported:
        return _written_forms(context.session, context.team_id)
    common = set.intersection(*reported)
    return {form for form, each in ADDED.items() if each.runtime is None or each.runtime.name in common}


def _written_forms(session: Session, team_id: str) -> set[str]:
    query = (
        select(JobRow.metrics["exports"])
        .where(JobRow.team_id == team_id, text(JOB_EXPORTS))
        .order_by(JobRow.created_at.desc())
        .limit(_NEWEST)
    )
    return {str(each["format"]) for exports in session.scalars(query) for each in exports or [] if "format" in each}
