"""The team's audit trail, for admins."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.dependencies import After, DatabaseSession
from api.portal.rendering import page
from api.portal.session import Admin
from core.service.teams import audit, keys

router = APIRouter(prefix="/team/audit")

_PAGE = 50


@router.get("")
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
    entries = audit.list_audit(session, caller.team_id, limit=_PAGE, after=after, **filters)
    who = keys.names_of(session, caller.team_id, {each.key_id for each in entries.data if each.key_id})
    first = f"{request.url.path}?{urlencode(filters)}" if filters else request.url.path
    context = {
        "entries": entries,
        "names": who,
        "fields": fields,
        "filtered": bool(filters),
        "after": after,
        "first": first,
        "next": f"{request.url.path}?{urlencode({**filters, 'after': entries.next_after or ''})}",
    }
    return page(request, "team/audit.html", context)
