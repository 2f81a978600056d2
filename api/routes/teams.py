"""The caller's team. Quotas are the operator's to set, with `secateur teams set` on the server."""

from api.dependencies import DatabaseSession, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from core.errors import Unauthenticated
from core.service.jobs import quotas
from secateur_wire.teams import Team

router = Router(prefix="/v1/team", tags=["team"])


@router.get("", responses=problems(Unauthenticated))
def get_team(caller: Viewer, session: DatabaseSession) -> Team:
    """Quotas, and what is used of them."""
    return quotas.get_team(session, caller.team_id)
