"""Retry of a job, refused while its artifact is being published."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.queue import request_retry
from core.service.jobs.quotas import require_room_in_queue
from core.service.jobs.resolution.dataset import require_dataset
from core.service.jobs.schemas import Job
from core.service.jobs.service import find_job, job_answer
from core.service.publications.in_use import used_by_publications
from core.service.teams import audit
from core.service.teams.principal import Actor, team_of
from secateur_wire.errors import Conflict


def retry(session: Session, caller: Actor, job_id: str, *, max_attempts: int) -> Job:
    """Queue a failed or cancelled job again. Idempotent.

    Raises NotFound, Conflict (also while an artifact of the job is being published, because the new attempt would
    replace it), InvalidRequest where this release cannot run the job, UnknownMethod where its method has left and
    QuotaExceeded where the team may not queue more.
    """
    row = find_job(session, team_of(caller), job_id, for_update=True)
    get_method(row.method)
    if not row.awaits_discovery:
        Recipe.load(row.body)
        _require_texts(row.sources)
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


def _require_texts(sources: Mapping[str, Any]) -> None:
    """Raise UnknownDataset where a text that a job reads is of a kind that has left."""
    for part, read in sources.items():
        for text in read if isinstance(read, list) else [read]:
            if isinstance(text, dict) and "simple_tasks" in (text.get("kind"), (text.get("prompts") or {}).get("kind")):
                require_dataset(text["name"], part)
