"""Traces of passes over language models: a worker runs the engine without values, and tells what a device would hold.

Nobody waits for a trace: until it is there, and where it fails, estimates do with a formula. A trace is kept by the
model's shapes, and by method, options and numbers of tokens, so that the next job of the same is estimated by it.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import seconds_from_now, seconds_from_statement
from core.device_kinds import DeviceKind
from core.engine.architectures.description import ModelDescription
from core.methods.cost import Tokens
from core.methods.registry import get_method
from core.pipeline.messages import TracedPass
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.tables import PassTraceRow
from core.service.sources.references import ModelReference

MOST_ATTEMPTS = 3
_AT_RANDOM = "random-structured"
_AGAIN_SECONDS = 600.0
"""A trace that failed is tried again after this long: it may have been the machine, or a folder it has not."""
_NOTED_AGAIN = timedelta(days=1)
"""Time after which it is noted once more that a trace is in use."""
_KEEP_DAYS = 90.0
_MOST_DUE = 200
"""Traces that are due at once; what is asked for beyond them is asked for again by the next estimate."""
_BATCH = 200

_reference: TypeAdapter[ModelReference] = TypeAdapter(ModelReference)


@dataclass(frozen=True)
class ClaimedPassTrace:
    """Trace that a worker has taken: of a model, whose team may ask the hub for it, and of a pass."""

    id: str
    attempt: int
    team_id: str
    model: ModelReference
    traced: TracedPass


def traced_pass(
    description: ModelDescription, job: Recipe, tokens: Tokens, device: DeviceKind, activation_budget_bytes: int
) -> TracedPass | None:
    """Return the pass of a job as it is traced; None where it cannot be.

    It can where weights or units go from a model without experts: where tokens go depends on values. In the place of
    a method that trains a model to choose, units are traced that go at random.
    """
    method = get_method(job.method)
    if description.known_as.experts is not None or not method.prunes:
        return None
    parameters = method.variant(job.pattern).cost.traced_parameters(job.parameters).model_dump(mode="json")
    if method.variant(job.pattern).needs.training:
        method = get_method(_AT_RANDOM)
        parameters = {name: parameters[name] for name in method.parameters.model_fields if name in parameters}
    length = (job.calibration.sequence_length if job.calibration else None) or tokens.window
    window = job.evaluation.sequence_length or tokens.window
    return TracedPass(
        method=method.id,
        pattern=job.pattern,
        sparsity=job.sparsity,
        parameters=parameters | ({"seed": 0} if "seed" in parameters else {}),
        layout=job.request.layout,
        at_least=job.request.at_least,
        is_timed=job.request.is_timed,
        calibration=(ceil(tokens.calibration / length), length) if tokens.calibration else None,
        evaluations=((ceil(tokens.evaluation / window), window),) if tokens.evaluation else (),
        activation_budget_bytes=activation_budget_bytes,
        device=device.name,
        dtype=job.output.dtype,
    )


def pass_trace_id(description: ModelDescription, traced: TracedPass) -> str:
    """Return the id of the trace of a pass over a model of these shapes."""
    content = json.dumps([description.model_dump(mode="json"), traced.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def known_peak(
    session: Session, team_id: str, model: ModelReference, description: ModelDescription, traced: TracedPass
) -> int | None:
    """Return the most bytes that a device holds during a pass; None where it is yet to be traced, or could not be.

    The first to ask for a pass has it traced.
    """
    row_id = pass_trace_id(description, traced)
    row = session.get(PassTraceRow, row_id)
    if row is None:
        due = select(func.count()).select_from(PassTraceRow).where(PassTraceRow.due_at.is_not(None))
        if (session.scalar(due) or 0) < _MOST_DUE:
            values = {"model": model.model_dump(mode="json"), "traced": traced.model_dump(mode="json")}
            request = insert(PassTraceRow).values(id=row_id, team_id=team_id, due_at=func.clock_timestamp(), **values)
            session.execute(request.on_conflict_do_nothing())
        return None
    if row.used_at < datetime.now(UTC) - _NOTED_AGAIN:
        session.execute(
            update(PassTraceRow)
            .where(PassTraceRow.id == row_id)
            .values(used_at=func.clock_timestamp())
            .execution_options(synchronize_session=False)
        )
    return row.peak_bytes


def claim_pass_trace(session: Session, *, lease_seconds: float) -> ClaimedPassTrace | None:
    """Take the trace that is due longest; None where none is.

    It is due again after the lease, unless what was found is there by then.
    """
    row = session.scalars(
        select(PassTraceRow)
        .where(PassTraceRow.due_at <= func.clock_timestamp())
        .order_by(PassTraceRow.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    try:
        model, traced = _reference.validate_python(row.model), TracedPass.model_validate(row.traced)
    except ValidationError:
        row.due_at = None  # another release's
        return None
    row.attempts, row.due_at = row.attempts + 1, _due_after(row.attempts + 1, lease_seconds)
    return ClaimedPassTrace(row.id, row.attempts, row.team_id, model, traced)


def keep_pass_trace(session: Session, claimed: ClaimedPassTrace, peak_bytes: int) -> None:
    """Write what was found."""
    _write(session, claimed, peak_bytes=peak_bytes, due_at=None)


def put_off_pass_trace(session: Session, claimed: ClaimedPassTrace) -> None:
    """Let a trace that failed be due again later, or never after the last attempt."""
    _write(session, claimed, due_at=_due_after(claimed.attempt, _AGAIN_SECONDS))


def release_pass_trace(session: Session, claimed: ClaimedPassTrace) -> None:
    """Give a trace back unharmed: the attempt does not count."""
    _write(session, claimed, due_at=func.clock_timestamp(), attempts=claimed.attempt - 1)


def forget_unused_traces(session: Session) -> int:
    """Remove a batch of traces that no estimate used for long; return of how many."""
    old = select(PassTraceRow.id).where(PassTraceRow.used_at < seconds_from_statement(-_KEEP_DAYS * 86400))
    removed = session.scalars(
        delete(PassTraceRow)
        .where(PassTraceRow.id.in_(old.limit(_BATCH).with_for_update(skip_locked=True)))
        .returning(PassTraceRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(removed.all())


def _write(session: Session, claimed: ClaimedPassTrace, **values: object) -> None:
    session.execute(
        update(PassTraceRow)
        .where(PassTraceRow.id == claimed.id, PassTraceRow.attempts == claimed.attempt)
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def _due_after(attempt: int, seconds: float) -> ColumnElement[datetime] | None:
    return seconds_from_now(seconds) if attempt < MOST_ATTEMPTS else None
