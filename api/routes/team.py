"""The caller's team: its quotas, the token it is asked with on the hub, its retention policy and its audit trail.

Quotas are the operator's to set, with `secateur teams set` on the server. A hub token is written, and never shown.
"""

from typing import Annotated

from fastapi import Query

from api.dependencies import Admin, After, DatabaseSession, Limit, State, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from core.service.jobs import quotas
from core.service.retention import service as retention
from core.service.retention.schemas import Retention, RetentionPolicy, RetentionPreview
from core.service.sources import hub_tokens
from core.service.sources.schemas import HubTokenBody
from core.service.teams.audit import list_audit as read_audit
from secateur_wire.base import Page
from secateur_wire.errors import Forbidden, InvalidRequest, Unauthenticated
from secateur_wire.teams import AuditEntry, HubToken, Team

router = Router(prefix="/v1", tags=["team"])


@router.get("/team", responses=problems(Unauthenticated))
def get_team(caller: Viewer, session: DatabaseSession) -> Team:
    """Quotas, and what is used of them."""
    return quotas.get_team(session, caller.team_id)


@router.get("/team/hub-token", responses=problems(Unauthenticated, Forbidden))
def get_hub_token(caller: Admin, session: DatabaseSession, state: State) -> HubToken:
    """Return whose token the hub is asked with for the team; the token itself is never shown."""
    return hub_tokens.get_hub_token(session, caller.team_id, state.settings)


@router.put("/team/hub-token", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def set_hub_token(body: HubTokenBody, caller: Admin, session: DatabaseSession, state: State) -> HubToken:
    """Set the team's token, in place of the one before. It is used from the next job on, and by those that wait."""
    return hub_tokens.set_hub_token(session, caller, body, settings=state.settings, secret=state.secret)


@router.delete("/team/hub-token", responses=problems(Unauthenticated, Forbidden))
def remove_hub_token(caller: Admin, session: DatabaseSession, state: State) -> HubToken:
    """Forget the team's token. Idempotent."""
    return hub_tokens.remove_hub_token(session, caller, state.settings)


@router.get("/team/retention", responses=problems(Unauthenticated, Forbidden))
def get_retention(caller: Admin, session: DatabaseSession) -> Retention:
    """The policy by which old artifacts are removed; null: none is."""
    return retention.get_retention(session, caller.team_id)


@router.put("/team/retention", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def set_retention(body: RetentionPolicy, caller: Admin, session: DatabaseSession) -> Retention:
    """Set the policy. It is applied within a minute, and every minute from then on, to at most 1,000 artifacts: look at
    the preview first.
    """
    return retention.set_retention(session, caller, body)


@router.delete("/team/retention", responses=problems(Unauthenticated, Forbidden))
def clear_retention(caller: Admin, session: DatabaseSession) -> Retention:
    """Keep everything from now on. Idempotent."""
    return retention.set_retention(session, caller, None)


@router.post("/team/retention/preview", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def preview_retention(body: RetentionPolicy, caller: Admin, session: DatabaseSession) -> RetentionPreview:
    """List the artifacts that a policy would remove now, and why the rest would stay. Nothing is changed."""
    return retention.preview(session, caller.team_id, body)


@router.get("/audit", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
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
