"""Webhooks: addresses of the team that are told what happens to its jobs.

An endpoint carries what the team does to another place, so only admins make and change them, as they do keys. Members
may try one and send again, which tells nobody anything new.
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
    """The team's webhooks, newest first, without their secrets."""
    return service.list_webhooks(session, caller.team_id, limit=limit, after=after)


@router.post(
    "",
    status_code=201,
    response_model=CreatedWebhook,
    responses=problems(Unauthenticated, Forbidden, Conflict, IdempotencyConflict, InvalidRequest, UnsafeAddress),
)
def create_webhook(body: WebhookBody, caller: Admin, state: State, once: CreateOnce) -> Response:
    """A new endpoint; `secret` in the answer, which its deliveries are signed with, is shown this once."""
    state.address_policy.check_url(body.url)  # asks a resolver: before the transaction begins

    def create(session: Session) -> tuple[int, BaseModel]:
        return 201, service.create_webhook(session, caller, body, secret=state.secret)

    return once.answer(caller, body, create)


@router.get("/{webhook_id}", responses=problems(Unauthenticated, NotFound))
def get_webhook(webhook_id: str, caller: Viewer, session: DatabaseSession) -> Webhook:
    """One webhook, without its secret."""
    return service.get_webhook(session, caller.team_id, webhook_id)


@router.patch("/{webhook_id}", responses=problems(Unauthenticated, Forbidden, NotFound, InvalidRequest, UnsafeAddress))
def change_webhook(
    webhook_id: str, body: WebhookChanges, caller: Admin, session: DatabaseSession, state: State
) -> Webhook:
    """Change what is given. `enabled: false` keeps what waits, `enabled: true` sends it; what happens in between is not
    told.
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
    """A new secret, shown this once; the old one signs beside it for `grace_seconds` more."""

    def create(session: Session) -> tuple[int, BaseModel]:
        rotated = service.rotate_secret(
            session, caller, webhook_id, grace_seconds=body.grace_seconds, secret=state.secret
        )
        return 201, rotated

    return once.answer(caller, body, create)


@router.post(
    "/{webhook_id}/ping",
    status_code=201,
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict),
)
def ping_webhook(webhook_id: str, caller: Member, session: DatabaseSession) -> Delivery:
    """Send an event `webhook.ping`, to see whether it arrives."""
    return service.ping(session, caller, webhook_id)


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
    """The deliveries of a webhook that match every filter, newest first."""
    return delivery_log.list_deliveries(
        session, caller.team_id, webhook_id, limit=limit, after=after, state=state, type=type
    )


@router.get("/{webhook_id}/deliveries/{delivery_id}", responses=problems(Unauthenticated, NotFound))
def get_delivery(webhook_id: str, delivery_id: str, caller: Viewer, session: DatabaseSession) -> DeliveryDetail:
    """One delivery: what is sent, and how each attempt went."""
    return delivery_log.get_delivery(session, caller.team_id, webhook_id, delivery_id)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/replay",
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict),
)
def replay_delivery(webhook_id: str, delivery_id: str, caller: Member, session: DatabaseSession) -> Delivery:
    """Send a delivery again, with the same webhook-id; one that waits is sent now."""
    return service.replay(session, caller, webhook_id, delivery_id)


@router.post("/{webhook_id}/replay", responses=problems(Unauthenticated, Forbidden, NotFound, Conflict, InvalidRequest))
def replay_failed(webhook_id: str, body: ReplayBody, caller: Member, session: DatabaseSession) -> Replayed:
    """Send again every delivery of an event since then that was given up."""
    count = service.replay_failed(session, caller, webhook_id, body.since)
    return Replayed(deliveries=count)
