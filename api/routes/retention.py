"""Retention policy of a team's artifacts; for admins."""

from api.dependencies import Admin, DatabaseSession
from api.http.problem_documents import problems
from api.http.routing import Router
from core.errors import Forbidden, InvalidRequest, Unauthenticated
from core.service.retention import service
from core.service.retention.schemas import Retention, RetentionPolicy, RetentionPreview

router = Router(prefix="/v1/team/retention", tags=["team"])


@router.get("", responses=problems(Unauthenticated, Forbidden))
def get_retention(caller: Admin, session: DatabaseSession) -> Retention:
    """The policy by which old artifacts are removed; null: none is."""
    return service.get_retention(session, caller.team_id)


@router.put("", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def set_retention(body: RetentionPolicy, caller: Admin, session: DatabaseSession) -> Retention:
    """Set the policy. It is applied within a minute, and every minute from then on, to at most 1,000 artifacts: look at
    the preview first.
    """
    return service.set_retention(session, caller, body)


@router.delete("", responses=problems(Unauthenticated, Forbidden))
def clear_retention(caller: Admin, session: DatabaseSession) -> Retention:
    """Keep everything from now on. Idempotent."""
    return service.set_retention(session, caller, None)


@router.post("/preview", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def preview_retention(body: RetentionPolicy, caller: Admin, session: DatabaseSession) -> RetentionPreview:
    """List the artifacts that a policy would remove now, and why the rest would stay. Nothing is changed."""
    return service.preview(session, caller.team_id, body)
