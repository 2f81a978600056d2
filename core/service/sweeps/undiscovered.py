"""Sweeps on undiscovered models: accepted at once, their points checked after the discovery.

Until then the points have no pattern, and no job is queued. After the discovery the points are checked like those of
any other sweep. Points that cannot run are left out if the request allows it; otherwise the sweep fails with the error
that would have refused it.
"""

from typing import Final, cast

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.undiscovered import request_discovery
from core.service.sweeps.grid import RequestedPoint, point_body
from core.service.sweeps.records import change_status, request_of
from core.service.sweeps.schemas import SweepBody
from core.service.sweeps.tables import SweepPointRow, SweepRow
from core.service.sweeps.validation import UNKNOWN_PATTERN, CheckedPoints, check_sweep, point_row
from secateur_wire.errors import InvalidRequest, NotDiscovered, QuotaExceeded, SecateurError, Unavailable
from secateur_wire.states import PointStage

WAITING: Final = "its model must first be examined, and its points are checked then"
"""Reason why a sweep waits meanwhile."""


def check_or_ask(context: RequestContext, body: SweepBody, requested: list[RequestedPoint]) -> CheckedPoints:
    """Check the points of a sweep; for an undiscovered model, only what needs no model, and request the discovery.

    Raises the errors of `check_sweep`, and QuotaExceeded where the team has too many discoveries.
    """
    try:
        return check_sweep(context, body, requested)
    except NotDiscovered as missing:
        checked = check_sweep(context, body, requested, is_model_known=False)
        request_discovery(context.session, context.caller, missing, context.settings)
        return checked


def awaits_discovery(session: Session, sweep_id: str) -> bool:
    """Return whether a sweep's points are still unchecked."""
    waiting = select(SweepPointRow.number).where(
        SweepPointRow.sweep_id == sweep_id, SweepPointRow.pattern == UNKNOWN_PATTERN
    )
    return session.scalar(waiting.limit(1)) is not None


def requested_again(session: Session, sweep: SweepRow, body: SweepBody) -> list[RequestedPoint]:
    """Return the points of a sweep as requested, with the revision of the model at that time."""
    rows = session.scalars(
        select(SweepPointRow).where(SweepPointRow.sweep_id == sweep.id).order_by(SweepPointRow.number)
    )
    return [
        RequestedPoint(row.point_values, point_body(body, sweep.pinned, sweep.id, row), cast(PointStage, row.stage))
        for row in rows
    ]


def check_points_again(context: RequestContext, row: SweepRow) -> bool:
    """Check the points of a sweep if its model is known now; return whether the sweep continues at once."""
    session = context.session
    body = request_of(row)
    requested = requested_again(session, row, body)
    try:
        checked = check_sweep(context, body, requested)
        if checked.points[0].model_revision != row.model_revision:
            raise InvalidRequest(
                f"model {row.model!r} has changed since this sweep began: submit the sweep again", param="model"
            )
    except NotDiscovered as missing:
        try:
            request_discovery(session, context.caller, missing, context.settings)
        except QuotaExceeded as error:
            row.waiting_for = error.message
        else:
            row.waiting_for = WAITING
        return False
    except Unavailable as error:
        row.waiting_for = error.message
        return False
    except SecateurError as error:
        change_status(session, row, "failed", error=error.problem())
        return False
    session.execute(delete(SweepPointRow).where(SweepPointRow.sweep_id == row.id))
    session.add_all(point_row(row.id, number, each) for number, each in enumerate(checked.points))
    row.skipped = [each.model_dump(mode="json") for each in checked.skipped]
    row.waiting_for = None
    session.flush()
    return True
