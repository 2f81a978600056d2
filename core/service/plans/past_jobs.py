"""Outcomes of a team's own jobs, and the earlier losses of a model in the jobs that made it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal, TypeAlias

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from core.engine.architectures.description import Description
from core.engine.options.patterns import parse_pattern
from core.engine.removals.vocabulary import vocabulary_size
from core.service.jobs.resolution.hub_lookup import JOB_PREFIX
from core.service.jobs.resolution.model import ResolvedModel
from core.service.jobs.service import job_answer
from core.service.jobs.tables import SHORT_ROW, JobReportRow, JobRow, kept_attempt
from core.service.plans.evidence import NEAR_SIZE
from core.service.plans.outcomes import Latency, Outcome, Setting, Subject, setting_of
from secateur_wire.errors import GateMissed
from secateur_wire.metrics import Metrics

Lost: TypeAlias = Literal["weights", "units"]
_MOST: Final = 100
"""Number of newest jobs of a method that are read."""
_MOST_GENERATIONS: Final = 10
"""Maximum number of jobs that are followed back, each pruning the artifact of the one before."""


@dataclass(frozen=True)
class Descent:
    """The original model of an artifact, and the share of removable parts that it has lost since, by kind.

    For a model that no job made, the original is the model itself.
    """

    subject: Subject
    lost: Mapping[Lost, float] = field(default_factory=dict)


def descent_of(session: Session, team_id: str, model: ResolvedModel) -> Descent:
    """Return the descent of a model; a model whose jobs are gone or have no figures is its own original."""
    description = model.description
    subject = subject_of(description, model.revision, model.name)
    lost: dict[Lost, float] = {}
    prunable, reference = description.prunable_parameters, model.name
    for _ in range(_MOST_GENERATIONS):
        if not reference.startswith(JOB_PREFIX):
            break
        row = session.scalar(
            select(JobRow).where(JobRow.id == reference.removeprefix(JOB_PREFIX), JobRow.team_id == team_id)
        )
        if row is None or row.metrics is None:
            break
        job = job_answer(row)
        metrics = job.measured
        reference = job.model
        if metrics.parameters is None or metrics.parameters.dense is None or metrics.parameters.nonzero is None:
            break
        if parse_pattern(job.pattern).shrinks:
            removed = metrics.parameters.dense - metrics.parameters.nonzero - _token_parameters(description, metrics)
            lost["units"] = 1 - (1 - lost.get("units", 0.0)) * prunable / (prunable + removed)
            prunable += removed
        elif metrics.sparsity is not None and metrics.sparsity.prunable:
            lost["weights"] = max(lost.get("weights", 0.0), float(metrics.sparsity.prunable))
        subject = replace(
            subject,
            parameters=metrics.parameters.dense,
            prunable=prunable,
            revision=job.model_revision,
            name=job.model,
        )
    return Descent(subject, lost)


def _token_parameters(description: Description, metrics: Metrics) -> int:
    """Return the number of parameters that a job removed with tokens, by the rows of a model that came of it."""
    if metrics.vocabulary is None:
        return 0
    tokens = metrics.vocabulary.dense - metrics.vocabulary.pruned
    return tokens * vocabulary_size(description.language_model).row


def subject_of(description: Description, revision: str, name: str) -> Subject:
    """Return the subject of a model, as outcomes name it."""
    return Subject(description.family, description.parameters, description.prunable_parameters, revision, name)


def outcomes_of_jobs(
    session: Session, team_id: str, method: str, subject: Subject, until: datetime | None = None
) -> list[Outcome]:
    """Return the outcomes of the team's newest complete jobs of a method, on this model or one of similar size.

    A job that missed a gate was measured, so it is included. With `until`, only jobs that had ended by then are
    included.
    """
    ended = or_(JobRow.status == "succeeded", JobRow.error["code"].astext == GateMissed.code)
    query = (
        select(JobRow)
        .options(*SHORT_ROW)
        .where(JobRow.team_id == team_id, JobRow.method == method, JobRow.metrics.is_not(None), ended)
        .order_by(JobRow.created_at.desc(), JobRow.id.desc())
        .limit(_MOST)
    )
    if until is not None:
        query = query.where(JobRow.finished_at < until)
    rows = session.scalars(query).all()
    others = [row.id for row in rows if row.model_revision != subject.revision and _is_near(row, subject)]
    subjects = _reported_subjects(session, others)
    outcomes = []
    for row in rows:
        of = subject if row.model_revision == subject.revision else subjects.get(row.id)
        outcome = None if of is None else _outcome_of(row, of)
        if outcome is not None:
            outcomes.append(outcome)
    return outcomes


@dataclass(frozen=True)
class DensePerplexity:
    """Perplexity of a dense model on a text, as a job measured it."""

    value: float
    text: str


def dense_perplexity(
    session: Session, team_id: str, revision: str, on: str | None, until: datetime | None = None
) -> DensePerplexity | None:
    """Return the perplexity of a model as the team's newest job measured it `on` a text (None: on any).

    Return None where there is no such job. With `until`, only jobs that had ended by then are read.
    """
    query = (
        select(JobRow.metrics)
        .where(JobRow.team_id == team_id, JobRow.model_revision == revision, JobRow.metrics.is_not(None))
        .order_by(JobRow.created_at.desc(), JobRow.id.desc())
        .limit(_MOST)
    )
    if until is not None:
        query = query.where(JobRow.finished_at < until)
    for metrics in session.scalars(query):
        for name, figures in Metrics.model_validate(metrics).perplexity.items():
            if on in (None, name) and figures.dense is not None and figures.dense > 1:
                return DensePerplexity(figures.dense, name)
    return None


def _is_near(row: JobRow, subject: Subject) -> bool:
    dense = Metrics.model_validate(row.metrics).parameters
    if dense is None or not dense.dense:
        return False
    return 1 / NEAR_SIZE <= dense.dense / subject.parameters <= NEAR_SIZE


def _reported_subjects(session: Session, job_ids: Sequence[str]) -> dict[str, Subject]:
    """Return the models of jobs, as described in their reports."""
    if not job_ids:
        return {}
    reported = JobReportRow.report["model"]
    query = (
        select(
            JobRow.id,
            JobRow.model,
            JobRow.model_revision,
            reported["family"].astext,
            reported["parameters"].as_integer(),
            reported["prunable_parameters"].as_integer(),
        )
        .join(JobReportRow, (JobReportRow.job_id == JobRow.id) & (JobReportRow.attempt == kept_attempt()))
        .where(JobRow.id.in_(job_ids))
    )
    return {
        job_id: Subject(family, parameters, prunable, revision, name)
        for job_id, name, revision, family, parameters, prunable in session.execute(query)
        if family and parameters and prunable
    }


def _outcome_of(row: JobRow, subject: Subject) -> Outcome | None:
    """Return the outcome of a job; None where its figures do not contain the removed share."""
    job = job_answer(row)
    metrics = job.measured
    recovery = None if job.recovery is None else job.recovery.model_dump(mode="json")
    setting = setting_of(job.method, job.pattern, job.output.layout, job.parameters, recovery)
    if metrics.vocabulary is not None or job.output.quantization is not None:
        return None  # what tokens and bits cost is no part of what the method costs
    share = None if setting is None else _share_of(metrics, setting, subject)
    if setting is None or share is None or not 0 < share < 1:
        return None
    before = {
        name: math.log(each.before_recovery / each.dense)
        for name, each in metrics.perplexity.items()
        if recovery is not None and each.before_recovery and each.dense
    }
    excess = {name: math.log(each.ratio) for name, each in metrics.perplexity.items() if each.ratio}
    calibration = job.calibration
    tokens = 0
    if calibration is not None and calibration.samples is not None:
        tokens = (calibration.samples + (calibration.generated or 0)) * (calibration.sequence_length or 0)
    latency: dict[Latency, float] = {}
    timed = metrics.latency
    if timed is not None and timed.ratio is not None:
        latency["prefill"] = timed.ratio
        if timed.decode_pruned_ms and timed.decode_dense_ms:
            latency["decode"] = timed.decode_pruned_ms / timed.decode_dense_ms
    return Outcome(
        setting=setting,
        subject=subject,
        source="jobs",
        share=share,
        excess=excess,
        unrecovered=before,
        answers={name: each.kl for name, each in metrics.answers.items() if each.kl is not None},
        latency=latency,
        latency_spread=float((timed.spread if timed is not None else None) or 0.0),
        device=None if timed is None else timed.device,
        calibration_tokens=tokens,
        calibration=None if calibration is None else calibration.dataset,
    )


def _share_of(metrics: Metrics, setting: Setting, subject: Subject) -> float | None:
    """Return the removed share of what can be removed."""
    if not setting.shrinks:
        return None if metrics.sparsity is None else metrics.sparsity.prunable
    parameters = metrics.parameters
    if parameters is None or parameters.dense is None or parameters.nonzero is None:
        return None
    return (parameters.dense - parameters.nonzero) / subject.prunable
