"""Pages for admins about the artifacts that the team keeps."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.dependencies import DatabaseSession, State
from api.portal.forms.errors import errors_by_field, status_of
from api.portal.rendering import page
from api.portal.session import Admin, Form, Posted, Visit
from core.database import transaction
from core.service.retention import service
from core.service.retention.schemas import RetentionPolicy, RetentionPreview

router = APIRouter(prefix="/team/retention")

_FIELDS = {"keep_days": "keep_days", "keep_tagged": "tagged"}
"""Form field of each field of the policy."""
_SHOWN = 200


@router.get("")
def show_retention(request: Request, caller: Admin, session: DatabaseSession) -> Response:
    policy = service.get_retention(session, caller.team_id).policy
    values = {} if policy is None else _values(policy)
    preview = None if policy is None else service.preview(session, caller.team_id, policy)
    return _retention_page(Visit(request, session, caller), values, preview=preview)


@router.post("")
def set_retention(request: Request, caller: Admin, state: State, posted: Posted) -> Response:
    """Set the policy, or preview it if that button was pressed."""
    if posted.get("what") == "clear":
        with transaction(state.sessions) as session:
            service.set_retention(session, caller, None)
        return RedirectResponse("/portal/team/retention", 303)
    with transaction(state.sessions) as session:
        try:
            policy = RetentionPolicy.model_validate(_policy_of(posted))
        except ValidationError as error:
            return _retention_page(Visit(request, session, caller), posted.fields, error=error)
        if posted.get("what") == "set":
            service.set_retention(session, caller, policy)
            return RedirectResponse("/portal/team/retention", 303)
        tried = service.preview(session, caller.team_id, policy)
        return _retention_page(Visit(request, session, caller), posted.fields, preview=tried)


def _policy_of(posted: Form) -> dict[str, Any]:
    policy: dict[str, Any] = {"keep_days": posted.get("keep_days")} if posted.get("keep_days") else {}
    if posted.get("tagged"):
        pairs = [line.partition("=") for line in posted.get("tagged").splitlines()]
        policy["keep_tagged"] = {"metadata": {key.strip(): value.strip() for key, _, value in pairs}}
    return policy


def _values(policy: RetentionPolicy) -> dict[str, str]:
    """Return a policy as form values."""
    values = {"keep_days": str(policy.keep_days)}
    if policy.keep_tagged is not None:
        values["tagged"] = "\n".join(f"{key}={value}" for key, value in policy.keep_tagged.metadata.items())
    return values


def _retention_page(
    visit: Visit,
    values: dict[str, str],
    *,
    preview: RetentionPreview | None = None,
    error: ValidationError | None = None,
) -> Response:
    errors = {} if error is None else errors_by_field(error, _FIELDS)
    now = service.get_retention(visit.session, visit.caller.team_id)
    context = {
        "now_set": now,
        "values": values,
        "errors": {_FIELDS.get(name, ""): said for name, said in errors.items()},
        "preview": preview,
        "is_set": preview is not None and preview.policy == now.policy,
        "shown": _SHOWN,
    }
    return page(visit.request, "team/retention.html", context, status=200 if error is None else status_of(error))
