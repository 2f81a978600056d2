"""Pages of webhooks: shown to everybody, tried by members, created and changed by admins."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.dependencies import After, DatabaseSession, State
from api.portal.forms.errors import errors_by_field, status_of
from api.portal.rendering import page
from api.portal.routes.team import GRACES
from api.portal.session import Admin, Form, Member, Posted, Viewer, Visit
from core.database import transaction
from core.service.webhooks import delivery_log, service
from core.service.webhooks.events import TYPES
from core.service.webhooks.schemas import RotateSecretBody, WebhookBody, WebhookChanges
from secateur_wire.errors import ApiError, InvalidRequest
from secateur_wire.webhooks import CreatedWebhook, DeliveryState, Webhook

router = APIRouter(prefix="/webhooks")

_PAGE = 25
_FIELDS = tuple(WebhookBody.model_fields)
_TYPES = tuple(type for type in TYPES if type != "webhook.ping")
"""Types that a user can choose: a ping is always sent."""
_DAY = "86400"
_BEGINNING = datetime.fromtimestamp(0, UTC)


@router.get("")
def list_webhooks(request: Request, caller: Viewer, session: DatabaseSession, after: After = None) -> Response:
    return _list_page(Visit(request, session, caller), {"types": []}, after=after)


@router.post("")
def create_webhook(request: Request, caller: Admin, state: State, posted: Posted) -> Response:
    """Create a webhook; the answer is the only page that ever shows its secret."""
    try:
        body = WebhookBody.model_validate(_body_of(posted))
        state.address_policy.check_url(body.url)
        with transaction(state.sessions) as session:
            created = service.create_webhook(session, caller, body, secret=state.secret)
    except (ApiError, ValidationError) as error:
        with transaction(state.sessions) as session:
            return _list_page(Visit(request, session, caller), _values_of(posted), error=error)
    return _shown_once(request, created)


@router.get("/{webhook_id}")
def show_webhook(
    request: Request,
    webhook_id: str,
    caller: Viewer,
    session: DatabaseSession,
    after: After = None,
    show: Annotated[DeliveryState | Literal[""], Query()] = "",
) -> Response:
    return _webhook_page(Visit(request, session, caller), webhook_id, after=after, show=show or None)


@router.post("/{webhook_id}")
def change_webhook(request: Request, webhook_id: str, caller: Admin, state: State, posted: Posted) -> Response:
    try:
        changes = WebhookChanges.model_validate(_body_of(posted))
        state.address_policy.check_url(changes.url or "")
        with transaction(state.sessions) as session:
            service.change_webhook(session, caller, webhook_id, changes)
    except (ApiError, ValidationError) as error:
        with transaction(state.sessions) as session:
            visit = Visit(request, session, caller)
            return _webhook_page(visit, webhook_id, refused=_Refused(error, _values_of(posted)))
    return _back_to(webhook_id)


@router.post("/{webhook_id}/switch")
def switch_webhook(webhook_id: str, caller: Admin, state: State, posted: Posted) -> Response:
    """Switch a webhook on or off, as `enabled` says."""
    with transaction(state.sessions) as session:
        changes = WebhookChanges(enabled=posted.get("enabled") == "yes")
        service.change_webhook(session, caller, webhook_id, changes)
    return _back_to(webhook_id)


@router.post("/{webhook_id}/rotate")
def rotate_secret(request: Request, webhook_id: str, caller: Admin, state: State, posted: Posted) -> Response:
    """Rotate a webhook's secret; the answer is the only page that ever shows the new one."""
    try:
        body = RotateSecretBody.model_validate({"grace_seconds": posted.get("grace_seconds", _DAY)})
        with transaction(state.sessions) as session:
            created = service.rotate_secret(
                session, caller, webhook_id, grace_seconds=body.grace_seconds, secret=state.secret
            )
    except (ApiError, ValidationError) as error:
        with transaction(state.sessions) as session:
            return _webhook_page(Visit(request, session, caller), webhook_id, refused=_Refused(error))
    return _shown_once(request, created)


@router.post("/{webhook_id}/delete")
def delete_webhook(webhook_id: str, caller: Admin, state: State) -> Response:
    with transaction(state.sessions) as session:
        service.delete_webhook(session, caller, webhook_id)
    return RedirectResponse("/portal/webhooks", 303)


@router.post("/{webhook_id}/ping")
def ping_webhook(webhook_id: str, caller: Member, state: State) -> Response:
    with transaction(state.sessions) as session:
        delivery = service.ping(session, caller, webhook_id)
    return RedirectResponse(f"/portal/webhooks/{webhook_id}/deliveries/{delivery.id}", 303)


@router.post("/{webhook_id}/replay")
def replay_failed(webhook_id: str, caller: Member, state: State) -> Response:
    """Replay all deliveries that were given up and are still kept."""
    with transaction(state.sessions) as session:
        service.replay_failed(session, caller, webhook_id, _BEGINNING)
    return _back_to(webhook_id)


@router.get("/{webhook_id}/deliveries/{delivery_id}")
def show_delivery(request: Request, webhook_id: str, delivery_id: str, caller: Viewer, state: State) -> Response:
    with transaction(state.sessions) as session:
        webhook = service.get_webhook(session, caller.team_id, webhook_id)
        delivery = delivery_log.get_delivery(session, caller.team_id, webhook_id, delivery_id)
    context = {"webhook": webhook, "delivery": delivery, "may_try": caller.may("member")}
    return page(request, "webhooks/delivery.html", context)


@router.post("/{webhook_id}/deliveries/{delivery_id}/replay")
def replay_delivery(webhook_id: str, delivery_id: str, caller: Member, state: State) -> Response:
    with transaction(state.sessions) as session:
        service.replay(session, caller, webhook_id, delivery_id)
    return RedirectResponse(f"/portal/webhooks/{webhook_id}/deliveries/{delivery_id}", 303)


def _back_to(webhook_id: str) -> Response:
    return RedirectResponse(f"/portal/webhooks/{webhook_id}", 303)


def _shown_once(request: Request, created: CreatedWebhook) -> Response:
    return page(request, "webhooks/new_secret.html", {"created": created}, status=201)


@dataclass(frozen=True)
class _Refused:
    """Refusal of the form that changes a webhook, with the typed `values`, or of an action, without values."""

    error: ApiError | ValidationError
    values: Mapping[str, Any] | None = None


def _list_page(
    visit: Visit,
    values: Mapping[str, Any],
    *,
    after: str | None = None,
    error: ApiError | ValidationError | None = None,
) -> Response:
    """Render the list of webhooks; `error` belongs to the form for a new one."""
    context = {
        "webhooks": service.list_webhooks(visit.session, visit.caller.team_id, limit=_PAGE, after=after),
        "values": values,
        "types": _TYPES,
        "errors": {} if error is None else errors_by_field(error, _FIELDS),
        "after": after,
        "may_change": visit.caller.may("admin"),
    }
    return page(visit.request, "webhooks/list.html", context, status=200 if error is None else status_of(error))


def _webhook_page(
    visit: Visit,
    webhook_id: str,
    *,
    after: str | None = None,
    show: DeliveryState | None = None,
    refused: _Refused | None = None,
) -> Response:
    session, caller = visit.session, visit.caller
    webhook = service.get_webhook(session, caller.team_id, webhook_id)
    deliveries = delivery_log.list_deliveries(session, caller.team_id, webhook_id, limit=_PAGE, after=after, state=show)
    context = {
        "webhook": webhook,
        "deliveries": deliveries,
        "states": get_args(DeliveryState),
        "show": show,
        "after": after,
        "values": (refused and refused.values) or _values_from(webhook),
        "types": _TYPES,
        "errors": {} if refused is None else errors_by_field(refused.error, _FIELDS),
        "graces": GRACES,
        "may_change": caller.may("admin"),
        "may_try": caller.may("member"),
    }
    status = 200 if refused is None else status_of(refused.error)
    return page(visit.request, "webhooks/page.html", context, status=status)


def _body_of(posted: Form) -> dict[str, Any]:
    """Return the body of the form, to be validated. Raises InvalidRequest for lines that are not NAME=VALUE."""
    metadata: dict[str, str] = {}
    for line in posted.get("metadata").splitlines():
        name, separator, value = line.strip().partition("=")
        if not separator or not name:
            raise InvalidRequest(f"metadata: write NAME=VALUE, one a line, not {line.strip()!r}", param="metadata")
        metadata[name.strip()] = value.strip()
    return {
        "url": posted.get("url"),
        "description": posted.get("description"),
        "types": posted.lists.get("types", []),
        "metadata": metadata,
    }


def _values_of(posted: Form) -> dict[str, Any]:
    """Return the form's values as typed."""
    return {
        "url": posted.get("url"),
        "description": posted.get("description"),
        "types": posted.lists.get("types", []),
        "metadata": posted.get("metadata"),
    }


def _values_from(webhook: Webhook) -> Mapping[str, Any]:
    """Return the form's values for an existing webhook."""
    lines = "\n".join(f"{name}={value}" for name, value in webhook.metadata.items())
    return {"url": webhook.url, "description": webhook.description, "types": webhook.types, "metadata": lines}
