"""Retry of a job, refused while its artifact is being published."""

from sqlalchemy.orm import Session

from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.queue import request_retry
from core.service.jobs.quotas import require_room_in_queue
from core.service.jobs.schemas import Job
from core.service.jobs.service import find_job, job_answer
from core.service.publications.in_use import used_by_publications
from core.service.teams import audit
from core.service.teams.principal import Actor, team_of
from secateur_wire.errors import Conflict


def retry(session: Session, caller: Actor, job_id: str, *, max_attempts: int) -> Job:
    """Queue a failed or cancelled job again. Idempotent.

    Raises NotFound, Conflict (also while an artifact of the job is being published, because the new attempt would
    replace it), a kind of InvalidRequest where its method or an option has left, and QuotaExceeded where the team may
    not queue more.
    """
    row = find_job(session, team_of(caller), job_id, for_update=True)
    Recipe.load(row.body)
    user = used_by_publications(session, row.team_id, [row.id]).get(row.id)
    if user is not None and row.status != "succeeded":
        raise Conflict(
            f"the artifact of job {job_id!r} is needed by {user}, and a retry would replace it: wait for it, or "
            "cancel it"
        )
    if request_retry(session, row.id, max_attempts).changed:
        require_room_in_queue(session, row.team_id, adding=0)  # It is queued already: the job's row is locked first.
        audit.note(session, caller, "job.retry", row.id, {"status": "queued"})
    session.refresh(row)
    return job_answer(row)
