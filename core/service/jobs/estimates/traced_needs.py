"""Needs of waiting jobs by the traces of their passes, made after they were submitted.

A job whose pass nobody has traced waits with a coarse bound. The dispatcher gives it the needs by the trace once that
is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from core.device_kinds import DeviceKind, device_kind
from core.engine.architectures.description import ModelDescription
from core.pipeline.messages import TracedPass
from core.service.duties.isolation import is_tried
from core.service.jobs.admission import Room, needs_columns
from core.service.jobs.estimates.resources import ResourceEstimate, pass_needs
from core.service.jobs.pass_traces import PASS, pass_trace_id
from core.service.jobs.tables import JOB_IS_UNTRACED, JobRow
from core.service.questions.tables import QuestionRow
from secateur_wire.errors import SecateurError
from secateur_wire.jobs import Estimate

DUTY: Final = "traced needs"
COARSE = "memory: a coarse bound until a worker has traced this pass; no job is refused by it"
"""Warning of an estimate whose memory is not known well."""
_BATCH = 500
_TRACED = (
    select(JobRow, QuestionRow.question, QuestionRow.answer)
    .join(QuestionRow, QuestionRow.id == JobRow.awaits_trace)
    .where(text(JOB_IS_UNTRACED), QuestionRow.answer.is_not(None), is_tried(DUTY, JobRow.id))
    .limit(_BATCH)
)


@dataclass(frozen=True)
class AwaitedTrace:
    """Trace that a job's needs are to come from, and the bytes that it needs on the same device beside the pass."""

    id: str
    bytes_without_pass: int

    @classmethod
    def of(cls, description: ModelDescription, traced: TracedPass, without_pass: ResourceEstimate) -> "AwaitedTrace":
        """Return the trace of a pass; `without_pass` are the needs with a pass that holds nothing."""
        return cls(pass_trace_id(description, traced), getattr(without_pass, _figure_of(device_kind(traced.device))))


def traced_jobs(session: Session) -> Sequence[str]:
    """Return the ids of a batch of waiting jobs whose pass has been traced since they were submitted."""
    return session.scalars(_TRACED.with_only_columns(JobRow.id)).all()


def take_traced_needs(session: Session, only: str | None = None) -> int:
    """Set the needs of a batch of waiting jobs, or of `only` one, from the traces of their passes.

    Returns the number of jobs that were changed. Their needs are the formula's again, until the figures of earlier jobs
    correct them.
    """
    query = _TRACED if only is None else _TRACED.where(JobRow.id == only)
    rows = session.execute(query.with_for_update(of=JobRow, skip_locked=True, key_share=True)).all()
    for job, question, answer in rows:
        kind = device_kind(PASS.question.model_validate(question).traced.device)
        peak_bytes = PASS.answer.model_validate(answer).peak_bytes
        assert peak_bytes is not None, "an answer without it is a failed attempt"
        figure = _figure_of(kind)
        estimate = Estimate.model_validate(job.estimate)
        needed = max(job.needs_without_pass, pass_needs(kind, peak_bytes))
        formula = {**estimate.basis.formula, figure: needed}
        estimate = estimate.model_copy(
            update={
                figure: needed,
                "warnings": [each for each in estimate.warnings if each != COARSE],
                "basis": estimate.basis.model_copy(update={"formula": formula}),
            }
        )
        needs = Room(formula["peak_device_memory_bytes"], formula["peak_memory_bytes"], formula["disk_bytes"])
        _write_job(
            session,
            job.id,
            estimate=estimate.model_dump(mode="json"),
            is_corrected=False,
            awaits_trace=None,
            **needs_columns(needs),
        )
    return len(rows)


def leave_coarse(job_id: str, session: Session, reason: SecateurError) -> bool:
    """Leave a job with the needs that it was submitted with."""
    _write_job(session, job_id, awaits_trace=None)
    return True


def _figure_of(device: DeviceKind) -> str:
    """Return the figure of an estimate that the bytes of a pass are part of."""
    return "peak_device_memory_bytes" if device.has_own_memory else "peak_memory_bytes"


def _write_job(session: Session, job_id: str, **values: object) -> None:
    session.execute(
        update(JobRow).where(JobRow.id == job_id).values(**values).execution_options(synchronize_session=False)
    )
