"""Log of deliveries and their attempts, and the removal of old ones."""

import json
from dataclasses import dataclass
from typing import cast

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, sessionmaker

from core.database import seconds_from_statement, transaction
from core.pagination import Listing, read_page
from core.service.webhooks.tables import WebhookAttemptRow, WebhookDeliveryRow, WebhookEventRow, WebhookRow
from core.settings import Settings
from secateur_wire.base import Page
from secateur_wire.errors import NotFound
from secateur_wire.webhooks import Delivery, DeliveryAttempt, DeliveryDetail, DeliveryState, WebhookType

ATTEMPTS_SHOWN = 50
_RETENTION_BATCH = 1000


def list_deliveries(
    session: Session,
    team_id: str,
    webhook_id: str,
    *,
    limit: int,
    after: str | None,
    state: DeliveryState | None = None,
    type: WebhookType | None = None,
) -> Page[Delivery]:
    """Return an endpoint's deliveries that match every filter, newest first. Raises NotFound."""
    _require_webhook(session, team_id, webhook_id)
    query = select(WebhookDeliveryRow).where(WebhookDeliveryRow.webhook_id == webhook_id)
    if state is not None:
        query = query.where(WebhookDeliveryRow.state == state)
    if type is not None:
        query = query.where(WebhookDeliveryRow.type == type)
    return read_page(session, Listing(query, WebhookDeliveryRow, delivery_answer), limit=limit, after=after)


def get_delivery(session: Session, team_id: str, webhook_id: str, delivery_id: str) -> DeliveryDetail:
    """Return a delivery with its payload and the log of its attempts. Raises NotFound."""
    _require_webhook(session, team_id, webhook_id)
    row = find_delivery(session, webhook_id, delivery_id)
    payload = session.scalars(select(WebhookEventRow.payload).where(WebhookEventRow.id == row.event_id)).one()
    attempts = session.scalars(
        select(WebhookAttemptRow)
        .where(WebhookAttemptRow.delivery_id == row.id)
        .order_by(WebhookAttemptRow.attempt.desc())
        .limit(ATTEMPTS_SHOWN)
    )
    log = [DeliveryAttempt.model_validate(attempt, from_attributes=True) for attempt in attempts]
    return DeliveryDetail(**delivery_answer(row).model_dump(), payload=json.loads(payload), log=log)


def find_delivery(session: Session, webhook_id: str, delivery_id: str) -> WebhookDeliveryRow:
    """Return a delivery's row; raises NotFound."""
    row = session.scalar(
        select(WebhookDeliveryRow).where(
            WebhookDeliveryRow.id == delivery_id, WebhookDeliveryRow.webhook_id == webhook_id
        )
    )
    if row is None:
        raise NotFound(f"there is no delivery {delivery_id!r} of this webhook")
    return row


def delivery_answer(row: WebhookDeliveryRow) -> Delivery:
    return Delivery(
        id=row.id,
        webhook_id=row.webhook_id,
        event_id=row.event_id,
        type=cast(WebhookType, row.type),
        subject=row.subject,
        state=cast(DeliveryState, row.state),
        attempts=row.attempt,
        last_status=row.last_status,
        last_error=row.last_error,
        next_attempt_at=row.next_attempt_at if row.state == "pending" else None,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


@dataclass(frozen=True)
class WaitingFigures:
    """Number of deliveries that wait for enabled endpoints, and the seconds that the longest has been overdue.

    Only deliveries to healthy endpoints count as overdue.
    """

    pending: int
    overdue_seconds: float


def waiting_figures(session: Session) -> WaitingFigures:
    """Return the figures of waiting deliveries, for metrics."""
    first = func.min(WebhookDeliveryRow.next_attempt_at).filter(WebhookRow.failing_since.is_(None))
    row = session.execute(
        select(func.count(), func.extract("epoch", func.clock_timestamp() - first))
        .select_from(WebhookRow)
        .join(WebhookDeliveryRow, WebhookDeliveryRow.webhook_id == WebhookRow.id)
        .where(WebhookRow.enabled, WebhookDeliveryRow.state == "pending")
    ).one()
    return WaitingFigures(row[0], max(0.0, float(row[1] or 0)))


def _require_webhook(session: Session, team_id: str, webhook_id: str) -> None:
    query = select(WebhookRow.id).where(WebhookRow.id == webhook_id, WebhookRow.team_id == team_id)
    if session.scalar(query) is None:
        raise NotFound(f"there is no webhook {webhook_id!r}")


def remove_old_deliveries(sessions: sessionmaker[Session], settings: Settings) -> int | None:
    """Remove all batches of `remove_old`."""
    removed = 0
    while True:
        with transaction(sessions) as session:
            count = remove_old(session, settings.webhook_retention_days)
        removed += count
        if not count:
            return removed or None


def remove_old(session: Session, retention_days: float) -> int:
    """Remove a batch of deliveries that ended or stuck `retention_days` ago, and events without deliveries.

    Returns the number of removed deliveries.
    """
    long_ago = seconds_from_statement(-retention_days * 24 * 3600)
    ended = (
        select(WebhookDeliveryRow.id)
        .where(WebhookDeliveryRow.finished_at < long_ago)
        .order_by(WebhookDeliveryRow.finished_at)
        .limit(_RETENTION_BATCH)
        .with_for_update(skip_locked=True)
    )
    waiting = (
        select(WebhookDeliveryRow.id)
        .join(WebhookRow, WebhookRow.id == WebhookDeliveryRow.webhook_id)
        .where(
            ~WebhookRow.enabled,
            WebhookRow.disabled_at < long_ago,
            WebhookDeliveryRow.state == "pending",
            WebhookDeliveryRow.created_at < long_ago,
        )
        .limit(_RETENTION_BATCH)
        .with_for_update(skip_locked=True, of=WebhookDeliveryRow)
    )
    removed = [*session.scalars(ended), *session.scalars(waiting)]
    session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.id.in_(removed)))
    has_delivery = select(WebhookDeliveryRow.id).where(WebhookDeliveryRow.event_id == WebhookEventRow.id).exists()
    empty = (
        select(WebhookEventRow.id)
        .where(WebhookEventRow.created_at < long_ago, ~has_delivery)
        .order_by(WebhookEventRow.created_at)
        .limit(_RETENTION_BATCH)
        .with_for_update(skip_locked=True)
    )
    session.execute(delete(WebhookEventRow).where(WebhookEventRow.id.in_(list(session.scalars(empty)))))
    return len(removed)
