"""Rows of a sweep, and the only function that changes its state."""

from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import JsonValue
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.pipeline.reports.dense_figures import KnownDenseFigures
from core.service.jobs.tables import JobRow
from core.service.sweeps.figures import figures_from
from core.service.sweeps.planning import PointState
from core.service.sweeps.schemas import SweepBody
from core.service.sweeps.tables import SweepPointRow, SweepRow
from core.service.webhooks.events import WebhookEvent, emit
from secateur_wire.base import JsonObject
from secateur_wire.errors import NotFound
from secateur_wire.metrics import Metrics
from secateur_wire.states import PointStage, PointStatus, SweepStatus
from secateur_wire.webhooks import WebhookType

_WEBHOOK_TYPES: Final[Mapping[SweepStatus, WebhookType]] = {
    "succeeded": "sweep.succeeded",
    "failed": "sweep.failed",
    "cancelled": "sweep.cancelled",
}
"""Webhook event types of the final states of a sweep."""


def change_status(
    session: Session, row: SweepRow, status: SweepStatus, *, error: Mapping[str, Any] | None = None
) -> None:
    """Change the state of a sweep, and write its webhook event in the same transaction.

    Every change of state, including the first, is made here. `error` describes a failure (`SecateurError.problem()`).
    """
    row.status = status
    row.error = None if error is None else dict(error)
    row.waiting_for = None
    row.finished_at = None if status == "running" else session.scalar(select(func.clock_timestamp()))
    session.flush()
    if status in _WEBHOOK_TYPES:
        emit(session, WebhookEvent(row.team_id, _WEBHOOK_TYPES[status], _payload(row), subject=row.id))


def _payload(row: SweepRow) -> dict[str, JsonValue]:
    """Return the payload of a sweep's webhook event."""
    return {
        "id": row.id,
        "object": "sweep",
        "name": row.name,
        "kind": "grid" if row.request.get("search") is None else "search",  # Also for a request that cannot be read.
        "status": row.status,
        "model": row.model,
        "error": row.error,
    }


def find_sweep(session: Session, team_id: str, sweep_id: str, *, for_update: bool = False) -> SweepRow:
    """Return a sweep's row; raises NotFound, also for another team's."""
    query = select(SweepRow).where(SweepRow.id == sweep_id, SweepRow.team_id == team_id)
    if for_update:
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    row = session.scalar(query)
    if row is None:
        raise NotFound(f"there is no sweep {sweep_id!r}")
    return row


def request_of(row: SweepRow) -> SweepBody:
    return SweepBody.model_validate(row.request)


def baseline_of(row: SweepRow) -> KnownDenseFigures:
    return KnownDenseFigures() if row.baseline is None else KnownDenseFigures.model_validate(row.baseline)


def read_points(session: Session, sweep_id: str) -> list[PointState]:
    """Return the points of a sweep with the states and figures of their jobs, by number."""
    rows = session.execute(
        select(SweepPointRow, JobRow.status, JobRow.metrics)
        .outerjoin(JobRow, JobRow.id == SweepPointRow.job_id)
        .where(SweepPointRow.sweep_id == sweep_id)
        .order_by(SweepPointRow.number)
        .execution_options(populate_existing=True)
    )
    return [point_of(row, status, metrics) for row, status, metrics in rows]


def point_of(row: SweepPointRow, status: str | None, metrics: JsonObject | None) -> PointState:
    """Return the point of a row; `status` and `metrics` are those of its job."""
    measured = Metrics.model_validate(metrics) if metrics is not None and status in ("succeeded", "failed") else None
    known = "failed" if status is None and row.error is not None else status or "waiting"
    return PointState(
        number=row.number,
        stage=cast(PointStage, row.stage),
        values=row.point_values,
        pattern=row.pattern,
        measures=row.measures,
        verifies=row.verifies,
        job_id=row.job_id,
        status=cast(PointStatus, known),
        figures=None if measured is None else figures_from(measured),
        is_wanted_again=row.again and known in ("failed", "cancelled"),
    )
