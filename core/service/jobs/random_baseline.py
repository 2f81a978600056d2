"""Baseline of random pruning: jobs of the same team that removed as much of the same model at random."""

from math import isclose

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.methods.registry import METHODS
from core.pipeline.reports.verdict import SAME_AMOUNT, verdict_on
from core.service.jobs.schemas import Job
from core.service.jobs.service import job_answer
from core.service.jobs.tables import SHORT_ROW, JobRow

_BASELINES = tuple(each.id for each in METHODS.values() if each.is_baseline)
_NEWEST = 20
_SAME_DENSE = 1e-3
"""Largest relative difference between two dense perplexities that count as the same measurement."""


def with_random_baseline(session: Session, team_id: str, job: Job) -> Job:
    """Return the job with a verdict that also compares it with the team's own random pruning jobs."""
    if job.verdict is None or job.verdict.figure != "perplexity" or job.sparsity is None or job.method in _BASELINES:
        return job
    ratios = _ratios(session, team_id, job, job.sparsity)
    verdict = verdict_on(job.method, job.pattern, job.sparsity, job.measured, ratios)
    return job.model_copy(update={"verdict": verdict})


def _ratios(session: Session, team_id: str, job: Job, sparsity: float) -> dict[str, float]:
    """Return the ratio of perplexities by text, of the newest random jobs with the same dense perplexity."""
    rows = session.scalars(
        select(JobRow)
        .options(*SHORT_ROW)
        .where(
            JobRow.team_id == team_id,
            JobRow.method.in_(_BASELINES),
            JobRow.model_revision == job.model_revision,
            JobRow.metrics.is_not(None),
        )
        .order_by(JobRow.created_at.desc(), JobRow.id.desc())
        .limit(_NEWEST)
    )
    ratios: dict[str, float] = {}
    for other in map(job_answer, rows):
        is_alike = other.pattern == job.pattern and other.recovery is None and other.sparsity is not None
        is_alike &= other.vocabulary == job.vocabulary
        if not is_alike or abs((other.sparsity or 0.0) - sparsity) > SAME_AMOUNT:
            continue
        for name, figure in other.measured.perplexity.items():
            own = job.measured.perplexity.get(name)
            if own is None or own.dense is None or figure.dense is None or figure.ratio is None:
                continue
            if isclose(own.dense, figure.dense, rel_tol=_SAME_DENSE):
                ratios.setdefault(name, figure.ratio)
    return ratios
