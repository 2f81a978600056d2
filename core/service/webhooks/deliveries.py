"""Queue of deliveries: claim, record, give up."""

import contextlib
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final

from sqlalchemy import bindparam, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session
from sqlalchemy.types import String

from core.database import seconds_from_now
from core.service.teams import audit
from core.service.teams.principal import Automation
from core.service.teams.sealing import SecretCipher
from core.service.webhooks.service import disable
from core.service.webhooks.tables import (
    WebhookAttemptRow,
    WebhookDeliveryRow,
    WebhookEventRow,
    WebhookRow,
    WebhookSecretRow,
)
from core.settings import Settings
from secateur_wire.errors import SecateurError

MOST_EACH: Final = 4
"""Maximum number of concurrent deliveries to one endpoint; a failing endpoint gets one."""
LONGEST_RETRY_AFTER: Final = 24 * 3600
"""Longest pause in seconds that a receiver may request."""


@dataclass(frozen=True)
class DueDelivery:
    """A delivery that a dispatcher holds. `secrets` are those to sign with, the newest first."""

    delivery_id: str
    attempt: int
    webhook_id: str
    team_id: str
    url: str
    is_failing: bool
    payload: str
    secrets: tuple[str, ...]
    claimed_at: datetime


@dataclass(frozen=True)
class DeliveryOutcome:
    """Result of an attempt: `error` is None for a delivered one, `status` is None without an answer."""

    milliseconds: int
    status: int | None
    error: str | None
    response: str | None
    retry_after: float | None


_DUE = text(f"""
    WITH RECURSIVE waiting (webhook_id) AS (
        (SELECT webhook_id FROM webhook_deliveries WHERE state = 'pending' ORDER BY webhook_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT delivery.webhook_id FROM webhook_deliveries AS delivery
            WHERE delivery.state = 'pending' AND delivery.webhook_id > waiting.webhook_id
            ORDER BY delivery.webhook_id LIMIT 1
        )
        FROM waiting WHERE waiting.webhook_id IS NOT NULL
    )
    SELECT due.id, webhooks.id AS webhook_id, webhooks.team_id, webhooks.failing_since IS NOT NULL AS is_failing
    FROM waiting
    CROSS JOIN LATERAL (SELECT * FROM webhooks AS endpoint WHERE endpoint.id = waiting.webhook_id LIMIT 1) AS webhooks
    CROSS JOIN LATERAL (
        SELECT id, next_attempt_at, number FROM webhook_deliveries AS delivery
        WHERE webhook_id = webhooks.id AND state = 'pending' AND next_attempt_at <= clock_timestamp()
            AND (lease_expires_at IS NULL OR lease_expires_at <= clock_timestamp())
            AND NOT EXISTS (
                SELECT FROM webhook_deliveries AS before
                WHERE before.webhook_id = delivery.webhook_id AND before.subject = delivery.subject
                    AND before.state = 'pending' AND before.number < delivery.number
            )
        ORDER BY next_attempt_at, number
        LIMIT CASE WHEN webhooks.failing_since IS NULL THEN {MOST_EACH} ELSE 1 END
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS due
    WHERE webhooks.enabled AND webhooks.id <> ALL(:full) AND webhooks.team_id <> ALL(:full_teams)
    ORDER BY is_failing, due.next_attempt_at, due.number
    LIMIT :most
""").bindparams(bindparam("full", type_=ARRAY(String())), bindparam("full_teams", type_=ARRAY(String())))
"""Query of the next deliveries of each endpoint, healthy endpoints first.

A delivery waits behind earlier ones of its subject. The query steps through the index of waiting deliveries from
endpoint to endpoint, so endpoints without any cost nothing.
"""


@dataclass(frozen=True)
class Candidate:
    """A due delivery with a locked row."""

    delivery_id: str
    webhook_id: str
    team_id: str
    is_failing: bool


def candidates(
    session: Session, *, most: int, full: Collection[str], full_teams: Collection[str]
) -> Sequence[Candidate]:
    """Return due deliveries, locked until the transaction ends, except for endpoints and teams that are `full`."""
    rows = session.execute(_DUE, {"most": most, "full": list(full), "full_teams": list(full_teams)})
    return [Candidate(*row) for row in rows]


def lease(session: Session, chosen: Sequence[Candidate], *, seconds: float, seal: SecretCipher) -> list[DueDelivery]:
    """Lease these candidates for some seconds, so that no other dispatcher sends them."""
    if not chosen:
        return []
    by_id = {each.delivery_id: each for each in chosen}
    taken = session.execute(
        update(WebhookDeliveryRow)
        .where(
            WebhookDeliveryRow.id.in_(by_id),
            WebhookDeliveryRow.webhook_id == WebhookRow.id,
            WebhookDeliveryRow.event_id == WebhookEventRow.id,
        )
        .values(attempt=WebhookDeliveryRow.attempt + 1, lease_expires_at=seconds_from_now(seconds))
        .returning(
            WebhookDeliveryRow.id,
            WebhookDeliveryRow.attempt,
            WebhookRow.url,
            WebhookEventRow.payload,
            func.clock_timestamp(),
        )
        .execution_options(synchronize_session=False)
    ).all()
    secrets = _secrets(session, {each.webhook_id for each in chosen}, seal)
    return [
        DueDelivery(
            delivery_id=delivery_id,
            attempt=attempt,
            webhook_id=by_id[delivery_id].webhook_id,
            team_id=by_id[delivery_id].team_id,
            url=url,
            is_failing=by_id[delivery_id].is_failing,
            payload=payload,
            secrets=tuple(secrets.get(by_id[delivery_id].webhook_id, ())),
            claimed_at=claimed_at,
        )
        for delivery_id, attempt, url, payload, claimed_at in taken
    ]


def _secrets(session: Session, webhook_ids: Collection[str], seal: SecretCipher) -> dict[str, list[str]]:
    """Return the endpoints' secrets, except any encrypted with another server secret: those cannot sign."""
    rows = session.execute(
        select(WebhookSecretRow.webhook_id, WebhookSecretRow.sealed)
        .where(
            WebhookSecretRow.webhook_id.in_(webhook_ids),
            or_(WebhookSecretRow.expires_at.is_(None), WebhookSecretRow.expires_at > func.clock_timestamp()),
        )
        .order_by(WebhookSecretRow.created_at.desc(), WebhookSecretRow.id.desc())
    )
    secrets: dict[str, list[str]] = {}
    for webhook_id, sealed in rows:
        with contextlib.suppress(ValueError):
            secrets.setdefault(webhook_id, []).append(seal.open(sealed))
    return secrets


def record(session: Session, due: DueDelivery, outcome: DeliveryOutcome, settings: Settings) -> None:
    """Record an attempt's end: delivered, to be tried again, or given up; may disable the endpoint.

    The endpoint is disabled if its receiver is gone or has failed for too long. A delivery whose attempt lost its lease
    is not changed.
    """
    webhook = session.execute(  # The endpoint is locked before its deliveries, as everywhere.
        select(WebhookRow.failing_since).where(WebhookRow.id == due.webhook_id).with_for_update(key_share=True)
    ).one_or_none()
    if webhook is None:
        return
    session.execute(
        insert(WebhookAttemptRow).values(
            delivery_id=due.delivery_id,
            attempt=due.attempt,
            started_at=due.claimed_at,
            milliseconds=outcome.milliseconds,
            status=outcome.status,
            error=outcome.error,
            response=outcome.response,
        )
    )
    row = session.scalar(
        select(WebhookDeliveryRow)
        .where(
            WebhookDeliveryRow.id == due.delivery_id,
            WebhookDeliveryRow.attempt == due.attempt,
            WebhookDeliveryRow.state == "pending",
        )
        .with_for_update(key_share=True)
    )
    if row is None:
        return
    row.lease_expires_at, row.last_status, row.last_error = None, outcome.status, outcome.error
    if outcome.error is None:
        _delivered(session, row, was_failing=webhook.failing_since is not None)
        return
    _failed(session, row, outcome, settings)
    if outcome.status == HTTPStatus.GONE:
        _disable(session, due, f"the receiver answered {HTTPStatus.GONE.value} Gone")
    elif _failed_for_long(session, due.webhook_id, settings.webhook_disable_days):
        _disable(session, due, f"every delivery failed for {settings.webhook_disable_days:g} days: {outcome.error}")


def give_up(delivery_id: str, session: Session, reason: SecateurError) -> bool:
    """Give up a delivery whose attempts cannot be recorded; later deliveries of its subject go on."""
    row = session.get(WebhookDeliveryRow, delivery_id, with_for_update={"key_share": True})
    if row is not None and row.state == "pending":
        row.state, row.finished_at = "failed", session.scalar(select(func.clock_timestamp()))
        row.lease_expires_at, row.last_error = None, reason.message
        session.flush()
        _move_later(session, row, to=0)
    return True


def _delivered(session: Session, row: WebhookDeliveryRow, *, was_failing: bool) -> None:
    row.state, row.finished_at = "delivered", session.scalar(select(func.clock_timestamp()))
    session.flush()
    if was_failing:
        session.execute(update(WebhookRow).where(WebhookRow.id == row.webhook_id).values(failing_since=None))
    if row.attempt > 1:
        _move_later(session, row, to=0)


def _failed(session: Session, row: WebhookDeliveryRow, outcome: DeliveryOutcome, settings: Settings) -> None:
    """Record a failure. Later deliveries of the same subject wait until this one is due again."""
    row.failures += 1
    delay = retry_delay(row.failures, outcome.retry_after, settings.webhook_retry_delays)
    if delay is None:
        row.state, row.finished_at = "failed", session.scalar(select(func.clock_timestamp()))
    else:
        row.next_attempt_at = session.scalars(select(seconds_from_now(delay))).one()
    session.flush()
    _move_later(session, row, to=0 if delay is None else delay)
    session.execute(
        update(WebhookRow)
        .where(WebhookRow.id == row.webhook_id, WebhookRow.failing_since.is_(None))
        .values(failing_since=func.clock_timestamp())
    )


def retry_delay(failures: int, retry_after: float | None, delays: Sequence[float]) -> float | None:
    """Return the seconds to the next attempt; None after the last. They vary by a fifth to spread the load.

    A receiver may request a longer pause, never a shorter one.
    """
    if failures > len(delays):
        return None
    delay = delays[failures - 1] * random.uniform(0.8, 1.2)
    return max(delay, min(retry_after or 0, LONGEST_RETRY_AFTER))


def _move_later(session: Session, row: WebhookDeliveryRow, *, to: float) -> None:
    """Postpone the untried deliveries behind this one by `to` seconds."""
    session.execute(
        update(WebhookDeliveryRow)
        .where(
            WebhookDeliveryRow.webhook_id == row.webhook_id,
            WebhookDeliveryRow.subject == row.subject,
            WebhookDeliveryRow.state == "pending",
            WebhookDeliveryRow.number > row.number,
        )
        .values(next_attempt_at=seconds_from_now(to))
        .execution_options(synchronize_session=False)
    )


def _failed_for_long(session: Session, webhook_id: str, days: float) -> bool:
    too_long = WebhookRow.failing_since < seconds_from_now(-days * 24 * 3600)
    return session.scalar(select(WebhookRow.id).where(WebhookRow.id == webhook_id, too_long)) is not None


def _disable(session: Session, due: DueDelivery, reason: str) -> None:
    if disable(session, due.webhook_id, reason[:500]):
        details = {"reason": reason[:500], "delivery": due.delivery_id}
        audit.note(session, Automation(due.team_id, "webhooks"), "webhook.disable", due.webhook_id, details)
