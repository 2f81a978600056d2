"""The team's audit trail; for admins."""

from typing import Annotated

from fastapi import Query

from api.dependencies import Admin, After, DatabaseSession, Limit
from api.http.problem_documents import problems
from api.http.routing import Router
from core.errors import Forbidden, InvalidRequest, Unauthenticated
from core.service.teams.audit import list_audit as read_audit
from secateur_wire.base import Page
from secateur_wire.teams import AuditEntry

router = Router(prefix="/v1/audit", tags=["team"])


@router.get("", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def list_audit(
    caller: Admin,
    session: DatabaseSession,
    limit: Limit = 50,
    after: After = None,
    action: Annotated[str | None, Query(max_length=100, description="Such as key.rotate.")] = None,
    object_id: Annotated[str | None, Query(max_length=300, description="What was changed, such as a job's id.")] = None,
) -> Page[AuditEntry]:
    """Every change the team's keys and the server's operator made, newest first."""
    return read_audit(session, caller.team_id, limit=limit, after=after, action=action, object_id=object_id)
