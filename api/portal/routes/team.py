"""Page of the team: its quotas and their use; for admins, its keys, its hub token and its audit trail."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.dependencies import After, DatabaseSession, State
from api.portal.forms.errors import errors_by_field, status_of
from api.portal.rendering import page
from api.portal.session import CSRF_FIELD, Admin, Posted, Viewer, Visit
from core.database import transaction
from core.service.jobs import quotas
from core.service.sources import hub_tokens
from core.service.sources.schemas import HubTokenBody
from core.service.teams import audit, keys
from core.service.teams.schemas import KeyBody, RotateBody
from secateur_wire.errors import ApiError, Conflict, InvalidRequest
from secateur_wire.teams import CreatedKey

router = APIRouter(prefix="/team")

_PAGE = 25
_ENTRIES = 50
"""Number of entries on a page of the audit trail."""
_HOUR = 3600
GRACES = (
    (0, "at once"),
    (_HOUR, "in an hour"),
    (24 * _HOUR, "in a day"),
    (7 * 24 * _HOUR, "in a week"),
    (30 * 24 * _HOUR, "in 30 days"),
)
"""Times until the old key ends, after its successor was created."""


@router.get("")
def show_team(request: Request, caller: Viewer, session: DatabaseSession, after: After = None) -> Response:
    return _team_page(Visit(request, session, caller), dict(request.query_params), after=after)


@router.post("/keys")
def create_key(request: Request, caller: Admin, state: State, posted: Posted) -> Response:
    """Create a key; the answer is the only page that ever shows it."""
    values = {name: value for name, value in posted.fields.items() if name != CSRF_FIELD}
    expires = values.get("expires_at")
    try:
        body = KeyBody.model_validate({**values, **({"expires_at": f"{expires}T00:00:00Z"} if expires else {})})
        with transaction(state.sessions) as session:
            created = keys.create_key(
                session, caller, role=body.role, name=body.name, expires_at=body.expires_at, secret=state.secret
            )
    except (ApiError, ValidationError) as error:
        with transaction(state.sessions) as session:
            return _team_page(Visit(request, session, caller), values, error=error)
    return _shown_once(request, created)


@router.post("/keys/{key_id}/rotate")
def rotate_key(request: Request, key_id: str, caller: Admin, state: State, posted: Posted) -> Response:
    """Rotate a key; the answer is the only page that ever shows the new one."""
    try:
        body = RotateBody.model_validate({"grace_seconds": posted.get("grace_seconds", str(_HOUR))})
        with transaction(state.sessions) as session:
            created = keys.rotate_key(session, caller, key_id, grace_seconds=body.grace_seconds, secret=state.secret)
    except (Conflict, ValidationError) as error:
        with transaction(state.sessions) as session:
            return _team_page(Visit(request, session, caller), {}, error=error, key_id=key_id)
    return _shown_once(request, created)


@router.post("/keys/{key_id}/revoke")
def revoke_key(request: Request, key_id: str, caller: Admin, state: State) -> Response:
    try:
        with transaction(state.sessions) as session:
            keys.revoke_key(session, caller, key_id)
    except Conflict as error:
        with transaction(state.sessions) as session:
            return _team_page(Visit(request, session, caller), {}, error=error, key_id=key_id)
    return RedirectResponse("/portal/team#keys", 303)


@router.post("/hub-token")
def set_hub_token(request: Request, caller: Admin, state: State, posted: Posted) -> Response:
    try:
        body = HubTokenBody.model_validate({"token": posted.get("token")})
        with transaction(state.sessions) as session:
            hub_tokens.set_hub_token(session, caller, body, settings=state.settings, secret=state.secret)
    except (InvalidRequest, ValidationError) as error:
        with transaction(state.sessions) as session:
            return _team_page(Visit(request, session, caller), {}, error=error)
    return RedirectResponse("/portal/team#hub-token", 303)


@router.post("/hub-token/remove")
def remove_hub_token(caller: Admin, state: State) -> Response:
    with transaction(state.sessions) as session:
        hub_tokens.remove_hub_token(session, caller, state.settings)
    return RedirectResponse("/portal/team#hub-token", 303)


@router.get("/audit")
def list_audit(
    request: Request,
    caller: Admin,
    session: DatabaseSession,
    after: After = None,
    action: Annotated[str, Query(max_length=100)] = "",
    object_id: Annotated[str, Query(max_length=300)] = "",
) -> Response:
    """Show a page of the audit trail, newest entries first."""
    fields = {"action": action.strip(), "object_id": object_id.strip()}
    filters = {name: value for name, value in fields.items() if value}
    entries = audit.list_audit(session, caller.team_id, limit=_ENTRIES, after=after, **filters)
    first = f"{request.url.path}?{urlencode(filters)}" if filters else request.url.path
    context = {
        "entries": entries,
        "fields": fields,
        "filtered": bool(filters),
        "after": after,
        "first": first,
        "next": f"{request.url.path}?{urlencode({**filters, 'after': entries.next_after or ''})}",
    }
    return page(request, "team/audit.html", context)


def _shown_once(request: Request, created: CreatedKey) -> Response:
    return page(request, "team/new_key.html", {"created": created}, status=201)


def _team_page(
    visit: Visit,
    values: dict[str, Any],
    *,
    after: str | None = None,
    error: ApiError | ValidationError | None = None,
    key_id: str | None = None,
) -> Response:
    """Render the team's page; `error` belongs to one of its forms, or to an action on the key `key_id`."""
    session, caller = visit.session, visit.caller
    is_admin = caller.role == "admin"
    fields = () if key_id else (*KeyBody.model_fields, *HubTokenBody.model_fields)
    errors = {} if error is None else errors_by_field(error, fields)
    context = {
        "team": quotas.get_team(session, caller.team_id),
        "keys": keys.list_keys(session, caller.team_id, limit=_PAGE, after=after) if is_admin else None,
        "hub_token": hub_tokens.get_hub_token(session, caller.team_id, visit.state.settings) if is_admin else None,
        "own_key": caller.key_id,
        "values": values,
        "errors": {} if key_id else errors,
        "refused": {key_id: "; ".join(errors.values())} if key_id else {},
        "graces": GRACES,
        "after": after,
    }
    return page(visit.request, "team/page.html", context, status=200 if error is None else status_of(error))
