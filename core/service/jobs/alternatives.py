"""Alternatives to pruning, with what jobs of the team that stored the same model have measured of them."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.methods.registry import METHODS
from core.service.jobs.schemas import Job
from core.service.jobs.service import job_answer
from core.service.jobs.tables import JobRow
from secateur_wire.metrics import Alternative

STORING: Final = tuple(each.id for each in METHODS.values() if each.only_stores)
"""Ids of the methods that change no weight."""
_NEWEST: Final = 20


def with_measured(
    session: Session, team_id: str, revision: str, dense_bytes: int, alternatives: Sequence[Alternative]
) -> list[Alternative]:
    """Return the alternatives of a model with the figures of the team's newest jobs that stored this revision.

    Types of files that only those jobs know are added. `dense_bytes` are the dense model's.
    """
    rows = session.scalars(
        select(JobRow)
        .where(
            JobRow.team_id == team_id,
            JobRow.method.in_(STORING),
            JobRow.model_revision == revision,
            JobRow.status == "succeeded",
        )
        .order_by(JobRow.created_at.desc(), JobRow.id.desc())
        .limit(_NEWEST)
    )
    known = {each.name: each for row in reversed(rows.all()) for each in _measured(job_answer(row), dense_bytes)}
    counted = {each.name: each for each in alternatives}
    return sorted((counted | known).values(), key=lambda each: -each.bytes)


def job_with_measured(session: Session, team_id: str, job: Job) -> Job:
    """Return the job with what was measured of its model's alternatives, where its figures have alternatives."""
    metrics = job.measured
    if not metrics.alternatives or metrics.bytes is None or not metrics.bytes.dense:
        return job
    measured = with_measured(session, team_id, job.model_revision, metrics.bytes.dense, metrics.alternatives)
    shown = [each.model_dump(mode="json") for each in measured]
    answer = job.model_copy(update={"metrics": {**(job.metrics or {}), "alternatives": shown}})
    vars(answer).pop("measured", None)  # the copy has the cached figures of the other one
    return answer


def _measured(job: Job, dense_bytes: int) -> list[Alternative]:
    """Return the copies that a job wrote, each with its measured bytes and quality."""
    metrics, dtype = job.measured, job.output.dtype
    copies = []
    if dtype != "keep" and metrics.bytes is not None and metrics.bytes.artifact:
        ratios = [each.ratio for each in metrics.perplexity.values() if each.ratio is not None]
        size = metrics.bytes.artifact
        copies.append(
            Alternative(
                name=f"dense in {dtype}",
                output={"dtype": dtype},
                bytes=size,
                ratio=size / dense_bytes,
                basis=f"measured by {job.id}",
                kl=None,
                top_1=None,
                perplexity_ratio=max(ratios, default=None),
            )
        )
    if dtype == "keep":
        copies += [
            Alternative(
                name=f"dense as {each.format} {each.type}",
                output={"exports": [{"format": each.format, "types": [each.type]}]},
                bytes=each.bytes,
                ratio=each.bytes / dense_bytes,
                basis=f"measured by {job.id}",
                kl=each.kl,
                top_1=each.top_1,
                perplexity_ratio=None,
            )
            for each in metrics.exports
        ]
    return copies
