"""Lineage of a job: the jobs whose artifacts its model came from, and the jobs that took its own artifact further."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from core.service.jobs.resolution.hub_lookup import JOB_PREFIX
from core.service.jobs.schemas import Job
from core.service.jobs.service import get_job, list_jobs
from secateur_wire.errors import NotFound

_MOST_ANCESTORS: Final = 20
_MOST_FURTHER: Final = 20


@dataclass(frozen=True)
class Lineage:
    """Way from a registered model to a job, and what went on from its artifact.

    `source` is the model at the beginning, and `before` are the jobs between, oldest first. `further` are the newest
    jobs that pruned or trained the artifact; `has_more` says that there are others.
    """

    source: str
    before: Sequence[Job]
    further: Sequence[Job]
    has_more: bool


def lineage_of(session: Session, team_id: str, job: Job) -> Lineage:
    """Return the lineage of a job of a team. A job that was removed since ends the way back."""
    source, before = job.model, list[Job]()
    while source.startswith(JOB_PREFIX) and len(before) < _MOST_ANCESTORS:
        try:
            parent = get_job(session, team_id, source.removeprefix(JOB_PREFIX))
        except NotFound:
            break
        before.insert(0, parent)
        source = parent.model
    further = list_jobs(session, team_id, limit=_MOST_FURTHER, after=None, model=JOB_PREFIX + job.id)
    return Lineage(source, before, further.data, further.has_more)
