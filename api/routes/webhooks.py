"""Routes of webhooks: addresses of the team that are notified of events of its jobs.

An endpoint sends the team's data to another place, so only admins create and change them, as with keys. Members may
send a ping and replay deliveries, which sends no new data.
"""

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.dependencies import Admin, After, CreateOnce, DatabaseSession, Limit, Member, State, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from core.service.webhooks import delivery_log, service
from core.service.webhooks.schemas import ReplayBody, RotateSecretBody, WebhookBody, WebhookChanges
from secateur_wire.base import Page
from secateur_wire.errors import (
    Conflict,
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    UnsafeAddress,
)
from secateur_wire.webhooks import (
    CreatedWebhook,
    Delivery,
    DeliveryDetail,
    DeliveryState,
    Replayed,
    Webhook,
    WebhookType,
)

router = Router(prefix="/v1/webhooks", tags=["webhooks"])


@router.get("", responses=problems(Unauthenticated, InvalidRequest))
def list_webhooks(caller: Viewer, session: DatabaseSession, limit: Limit = 50, after: After = None) -> Page[Webhook]:
    """List the team's webhooks, newest first, without their secrets."""
    return service.list_webhooks(session, caller.team_id, limit=limit, after=after)


@router.post(
    "",
    status_code=201,
    response_model=CreatedWebhook,
    responses=problems(Unauthenticated, Forbidden, Conflict, IdempotencyConflict, InvalidRequest, UnsafeAddress),
)
def create_webhook(body: WebhookBody, caller: Admin, state: State, once: CreateOnce) -> Response:
    """Create an endpoint.

    Only this answer has its `secret`, which signs its deliveries.
    """
    state.address_policy.check_url(body.url)  # This resolves the host name, so it runs before the transaction begins.

    def create(session: Session) -> tuple[int, BaseModel]:
        return 201, service.create_webhook(session, caller, body, secret=state.secret)

    return once.answer(caller, body, create)


@router.get("/{webhook_id}", responses=problems(Unauthenticated, NotFound))
def get_webhook(webhook_id: str, caller: Viewer, session: DatabaseSession) -> Webhook:
    """Return one webhook, without its secret."""
    return service.get_webhook(session, caller.team_id, webhook_id)


@router.patch("/{webhook_id}", responses=problems(Unauthenticated, Forbidden, NotFound, InvalidRequest, UnsafeAddress))
def change_webhook(
    webhook_id: str, body: WebhookChanges, caller: Admin, session: DatabaseSession, state: State
) -> Webhook:
    """Change the given fields.

    `enabled: false` keeps the waiting deliveries, and `enabled: true` sends them. Events in between are not sent.
    """
    if body.url is not None:
        state.address_policy.check_url(body.url)
    return service.change_webhook(session, caller, webhook_id, body)


@router.delete(
    "/{webhook_id}",
    status_code=204,
    response_model=None,
    responses=problems(Unauthenticated, Forbidden, NotFound),
)
def delete_webhook(webhook_id: str, caller: Admin, session: DatabaseSession) -> None:
    """Remove a webhook with its deliveries."""
    service.delete_webhook(session, caller, webhook_id)


@router.post(
    "/{webhook_id}/rotate",
    status_code=201,
    response_model=CreatedWebhook,
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict, IdempotencyConflict, InvalidRequest),
)
def rotate_webhook_secret(
    webhook_id: str, body: RotateSecretBody, caller: Admin, state: State, once: CreateOnce
) -> Response:
    """Create a new secret, which only this answer has; the old one also signs for `grace_seconds` more."""

    def create(session: Session) -> tuple[int, BaseModel]:
        rotated = service.rotate_secret(
            session, caller, webhook_id, grace_seconds=body.grace_seconds, secret=state.secret
        )
        return 201, rotated

    return once.answer(caller, body, create)


@router.post(
    "/{webhook_id}/ping",
    status_code=201,
    response_model=Delivery,
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict, IdempotencyConflict),
)
def ping_webhook(webhook_id: str, caller: Member, once: CreateOnce) -> Response:
    """Send an event `webhook.ping`, to check that it arrives."""
    return once.answer(caller, None, lambda session: (201, service.ping(session, caller, webhook_id)))


@router.get("/{webhook_id}/deliveries", responses=problems(Unauthenticated, NotFound, InvalidRequest))
def list_deliveries(
    webhook_id: str,
    caller: Viewer,
    session: DatabaseSession,
    limit: Limit = 50,
    after: After = None,
    state: Annotated[DeliveryState | None, Query(description="pending: waits, or is on its way.")] = None,
    type: Annotated[WebhookType | None, Query(description="Of events of this type.")] = None,
) -> Page[Delivery]:
    """List the deliveries of a webhook that match every filter, newest first."""
    return delivery_log.list_deliveries(
        session, caller.team_id, webhook_id, limit=limit, after=after, state=state, type=type
    )


@router.get("/{webhook_id}/deliveries/{delivery_id}", responses=problems(Unauthenticated, NotFound))
def get_delivery(webhook_id: str, delivery_id: str, caller: Viewer, session: DatabaseSession) -> DeliveryDetail:
    """Return one delivery: its payload, and the result of each attempt."""
    return delivery_log.get_delivery(session, caller.team_id, webhook_id, delivery_id)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/replay",
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict),
)
def replay_delivery(webhook_id: str, delivery_id: str, caller: Member, session: DatabaseSession) -> Delivery:
    """Send a delivery again, with the same webhook-id; a waiting delivery is sent now."""
    return service.replay(session, caller, webhook_id, delivery_id)


@router.post("/{webhook_id}/replay", responses=problems(Unauthenticated, Forbidden, NotFound, Conflict, InvalidRequest))
def replay_failed(webhook_id: str, body: ReplayBody, caller: Member, session: DatabaseSession) -> Replayed:
    """Send again every given-up delivery of an event after `since`."""
    count = service.replay_failed(session, caller, webhook_id, body.since)
    return Replayed(deliveries=count)
