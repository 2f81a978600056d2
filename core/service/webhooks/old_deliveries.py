"""Removal of deliveries that ended long ago, or that nobody will send any more."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, sessionmaker

from core.database import seconds_from_statement, transaction
from core.service.webhooks.tables import WebhookDeliveryRow, WebhookEventRow, WebhookRow
from core.settings import Settings

_RETENTION_BATCH = 1000


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
    """Remove a batch of deliveries over or stuck for so many days, and events without any; returns how many."""
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
