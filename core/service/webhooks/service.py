"""Service of webhooks: create, change, rotate secrets, test, and redeliver."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, ScalarSelect, delete, func, select, update
from sqlalchemy.orm import Session

from core.database import new_id, seconds_from_now
from core.pagination import Listing, read_page
from core.service.teams import audit
from core.service.teams.principal import Actor, team_of
from core.service.teams.sealing import SecretCipher
from core.service.webhooks.delivery_log import delivery_answer, find_delivery
from core.service.webhooks.events import Listener, WebhookEvent, write_event
from core.service.webhooks.schemas import MOST_WEBHOOKS, WebhookBody, WebhookChanges
from core.service.webhooks.signing import PURPOSE, new_secret
from core.service.webhooks.tables import WebhookDeliveryRow, WebhookRow, WebhookSecretRow
from secateur_wire.base import Page
from secateur_wire.errors import Conflict, NotFound
from secateur_wire.webhooks import CreatedWebhook, Delivery, DeliveryState, Webhook, WebhookType

MOST_SECRETS = 5
"""Maximum number of secrets of an endpoint: each adds a signature to every delivery."""
BY_HAND = "disabled by hand"
MOST_COUNTED = 1000
"""Maximum count of an endpoint's deliveries in each state: an unavailable endpoint may have any number."""


def create_webhook(session: Session, caller: Actor, body: WebhookBody, *, secret: bytes) -> CreatedWebhook:
    """Create an endpoint with a URL that the caller has checked (`core.http.address_policy`).

    Raises Conflict where the team has too many.
    """
    team_id = team_of(caller)
    count = session.scalar(select(func.count()).select_from(WebhookRow).where(WebhookRow.team_id == team_id)) or 0
    if count >= MOST_WEBHOOKS:
        raise Conflict(f"a team has at most {MOST_WEBHOOKS} webhooks: delete one that is no longer needed")
    row = WebhookRow(
        id=new_id("webhook"),
        team_id=team_id,
        url=body.url,
        description=body.description,
        types=_types(body.types),
        labels=dict(body.metadata) or None,
        enabled=True,
    )
    session.add(row)
    session.flush()
    plain = _add_secret(session, row.id, secret)
    audit.note(session, caller, "webhook.create", row.id, {"url": body.url, "types": body.types})
    return CreatedWebhook(**webhook_answer(session, row).model_dump(), secret=plain)


def list_webhooks(session: Session, team_id: str, *, limit: int, after: str | None) -> Page[Webhook]:
    """Return the team's endpoints, newest first."""
    query = select(WebhookRow).where(WebhookRow.team_id == team_id)
    page = read_page(session, Listing(query, WebhookRow, lambda row: row), limit=limit, after=after)
    answers = _answers(session, page.data)
    return Page(data=answers, has_more=page.has_more, next_after=page.next_after)


def get_webhook(session: Session, team_id: str, webhook_id: str) -> Webhook:
    """Return an endpoint; raises NotFound, also for another team's."""
    return webhook_answer(session, _find(session, team_id, webhook_id))


def change_webhook(session: Session, caller: Actor, webhook_id: str, changes: WebhookChanges) -> Webhook:
    """Change the given fields; the caller has checked a new URL. An enabled endpoint gets its waiting events at once.

    Raises NotFound.
    """
    row = _find(session, team_of(caller), webhook_id, lock=True)
    given = changes.model_dump(exclude_none=True, exclude={"enabled"})
    stored: dict[str, Any] = dict(given)
    if changes.types is not None:
        stored["types"] = _types(changes.types)
    if changes.metadata is not None:
        stored["labels"] = stored.pop("metadata") or None
    noted = any(getattr(row, name) != value for name, value in stored.items())
    for name, value in stored.items():
        setattr(row, name, value)
    session.flush()
    if noted:
        audit.note(session, caller, "webhook.update", row.id, given)
    if changes.enabled is True and not row.enabled:
        _enable(session, row)
        audit.note(session, caller, "webhook.enable", row.id)
    elif changes.enabled is False and row.enabled:
        disable(session, row.id, BY_HAND)
        session.refresh(row)
        audit.note(session, caller, "webhook.disable", row.id, {"reason": BY_HAND})
    return webhook_answer(session, row)


def delete_webhook(session: Session, caller: Actor, webhook_id: str) -> None:
    """Remove an endpoint with its deliveries. Raises NotFound.

    Its many deliveries are removed first, so that jobs that end meanwhile wait only for the removal of its own row.
    """
    row = _find(session, team_of(caller), webhook_id, lock=True)
    url = row.url
    session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.webhook_id == row.id))
    session.execute(delete(WebhookRow).where(WebhookRow.id == row.id))
    audit.note(session, caller, "webhook.delete", webhook_id, {"url": url})


def rotate_secret(
    session: Session, caller: Actor, webhook_id: str, *, grace_seconds: float, secret: bytes
) -> CreatedWebhook:
    """Create a new secret; older ones also sign, for at most `grace_seconds` more. Raises NotFound, Conflict."""
    row = _find(session, team_of(caller), webhook_id, lock=True)
    own = WebhookSecretRow.webhook_id == row.id
    session.execute(
        update(WebhookSecretRow)
        .where(own)
        .values(expires_at=func.least(WebhookSecretRow.expires_at, seconds_from_now(grace_seconds)))
        .execution_options(synchronize_session=False)
    )
    session.execute(delete(WebhookSecretRow).where(own, WebhookSecretRow.expires_at <= func.clock_timestamp()))
    good = session.scalar(select(func.count()).select_from(WebhookSecretRow).where(own)) or 0
    if good >= MOST_SECRETS:
        raise Conflict(f"{good} secrets are valid already: rotate with a shorter grace, or when one has expired")
    plain = _add_secret(session, row.id, secret)
    audit.note(session, caller, "webhook.rotate", row.id, {"grace_seconds": grace_seconds})
    return CreatedWebhook(**webhook_answer(session, row).model_dump(), secret=plain)


def ping(session: Session, caller: Actor, webhook_id: str) -> Delivery:
    """Send an event `webhook.ping` for any event types of the endpoint.

    Raises NotFound, Conflict where it is disabled.
    """
    row = _find(session, team_of(caller), webhook_id, lock=True)
    _require_enabled(row)
    subject = new_id("ping")
    event = WebhookEvent(row.team_id, "webhook.ping", {"id": subject, "webhook": row.id}, subject)
    [delivery_id] = write_event(session, [Listener(row.id, None)], event)
    audit.note(session, caller, "webhook.ping", row.id, {"delivery": delivery_id})
    return delivery_answer(find_delivery(session, row.id, delivery_id))


def replay(session: Session, caller: Actor, webhook_id: str, delivery_id: str) -> Delivery:
    """Send a delivery again, or send a waiting one now; delays start anew. Raises NotFound, Conflict."""
    row = _find(session, team_of(caller), webhook_id, lock=True)
    delivery = find_delivery(session, row.id, delivery_id)
    _require_enabled(row)
    _begin_again(session, WebhookDeliveryRow.id == delivery.id)
    audit.note(session, caller, "webhook.replay", row.id, {"delivery": delivery.id})
    session.refresh(delivery)
    return delivery_answer(delivery)


def replay_failed(session: Session, caller: Actor, webhook_id: str, since: datetime) -> int:
    """Replay all given-up deliveries of events after `since`; return their number.

    Raises NotFound, Conflict where disabled.
    """
    row = _find(session, team_of(caller), webhook_id, lock=True)
    _require_enabled(row)
    count = _begin_again(
        session,
        WebhookDeliveryRow.webhook_id == row.id,
        WebhookDeliveryRow.state == "failed",
        WebhookDeliveryRow.created_at >= since,
    )
    audit.note(session, caller, "webhook.replay", row.id, {"since": since.isoformat(), "deliveries": count})
    return count


def disable(session: Session, webhook_id: str, reason: str) -> bool:
    """Disable an endpoint; its deliveries keep waiting. False where it was disabled already."""
    disabled = session.scalar(
        update(WebhookRow)
        .where(WebhookRow.id == webhook_id, WebhookRow.enabled)
        .values(enabled=False, disabled_reason=reason, disabled_at=func.clock_timestamp())
        .returning(WebhookRow.id)
        .execution_options(synchronize_session=False)
    )
    return disabled is not None


def _enable(session: Session, row: WebhookRow) -> None:
    row.enabled, row.disabled_reason, row.disabled_at, row.failing_since = True, None, None, None
    session.flush()
    _begin_again(session, WebhookDeliveryRow.webhook_id == row.id, WebhookDeliveryRow.state == "pending")


def _begin_again(session: Session, *conditions: ColumnElement[bool]) -> int:
    """Make deliveries due now with all attempts left; the endpoint's row is locked. A running one keeps its lease."""
    restarted = session.scalars(
        update(WebhookDeliveryRow)
        .where(*conditions)
        .values(state="pending", finished_at=None, failures=0, next_attempt_at=func.clock_timestamp())
        .returning(WebhookDeliveryRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(restarted.all())


def _require_enabled(row: WebhookRow) -> None:
    if not row.enabled:
        raise Conflict(f"the webhook is disabled ({row.disabled_reason}): enable it first")


def _find(session: Session, team_id: str, webhook_id: str, *, lock: bool = False) -> WebhookRow:
    """Return an endpoint's row; raises NotFound, also for another team's."""
    query = select(WebhookRow).where(WebhookRow.id == webhook_id, WebhookRow.team_id == team_id)
    row = session.scalar(query.with_for_update(key_share=True) if lock else query)
    if row is None:
        raise NotFound(f"there is no webhook {webhook_id!r}")
    return row


def _add_secret(session: Session, webhook_id: str, secret: bytes) -> str:
    plain = new_secret()
    sealed = SecretCipher(secret, PURPOSE).seal(plain)
    session.add(WebhookSecretRow(id=new_id("secret"), webhook_id=webhook_id, sealed=sealed))
    session.flush()
    return plain


def _types(types: Sequence[str]) -> list[str] | None:
    return list(dict.fromkeys(types)) or None


def webhook_answer(session: Session, row: WebhookRow) -> Webhook:
    return _answers(session, [row])[0]


def _count(state: DeliveryState) -> ScalarSelect[int]:
    """Return the number of deliveries of the enclosing query's webhook in a state, at most `MOST_COUNTED`."""
    counted = (
        select(WebhookDeliveryRow.id)
        .where(WebhookDeliveryRow.webhook_id == WebhookRow.id, WebhookDeliveryRow.state == state)
        .limit(MOST_COUNTED)
        .correlate(WebhookRow)
        .subquery()
    )
    return select(func.count()).select_from(counted).scalar_subquery()


def _answers(session: Session, rows: Sequence[WebhookRow]) -> list[Webhook]:
    counted = session.execute(
        select(WebhookRow.id, _count("pending"), _count("failed")).where(WebhookRow.id.in_([row.id for row in rows]))
    )
    counts = {webhook_id: (pending, failed) for webhook_id, pending, failed in counted}
    return [
        Webhook(
            id=row.id,
            url=row.url,
            description=row.description,
            types=cast(list[WebhookType], row.types or []),
            metadata=row.labels or {},
            enabled=row.enabled,
            disabled_reason=row.disabled_reason,
            disabled_at=row.disabled_at,
            failing_since=row.failing_since,
            pending=counts[row.id][0],
            failed=counts[row.id][1],
            created_at=row.created_at,
        )
        for row in rows
    ]
