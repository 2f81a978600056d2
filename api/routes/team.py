"""Routes of the caller's team: its quotas, its people, its hub token, its retention policy and its audit trail.

The operator sets quotas with `secateur teams set` on the server. A hub token can be set, and is never shown.
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
from core.service.teams import people
from core.service.teams.audit import list_audit as read_audit
from secateur_wire.base import Page
from secateur_wire.errors import Forbidden, InvalidRequest, Unauthenticated
from secateur_wire.teams import AuditEntry, HubToken, Person, Team

router = Router(prefix="/v1", tags=["team"])


@router.get("/team", responses=problems(Unauthenticated))
def get_team(caller: Viewer, session: DatabaseSession) -> Team:
    """Return the team's quotas and their use."""
    return quotas.get_team(session, caller.team_id)


@router.get("/people", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def list_people(caller: Admin, session: DatabaseSession, limit: Limit = 50, after: After = None) -> Page[Person]:
    """List the people of the team, newest first, with the roles that the provider's claims give them.

    Who may sign in is decided at the identity provider: a role that it takes away ends at the next sign-in, which a
    session asks for after `SECATEUR_OIDC_SESSION_SECONDS`.
    """
    return people.list_people(session, caller.team_id, limit=limit, after=after)


@router.get("/team/hub-token", responses=problems(Unauthenticated, Forbidden))
def get_hub_token(caller: Admin, session: DatabaseSession, state: State) -> HubToken:
    """Return the owner of the hub token that is used for the team; the token itself is never shown."""
    return hub_tokens.get_hub_token(session, caller.team_id, state.settings)


@router.put("/team/hub-token", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def set_hub_token(body: HubTokenBody, caller: Admin, session: DatabaseSession, state: State) -> HubToken:
    """Set the team's hub token and replace the earlier one.

    New and waiting jobs use it.
    """
    return hub_tokens.set_hub_token(session, caller, body, settings=state.settings, secret=state.secret)


@router.delete("/team/hub-token", responses=problems(Unauthenticated, Forbidden))
def remove_hub_token(caller: Admin, session: DatabaseSession, state: State) -> HubToken:
    """Remove the team's hub token. Idempotent."""
    return hub_tokens.remove_hub_token(session, caller, state.settings)


@router.get("/team/retention", responses=problems(Unauthenticated, Forbidden))
def get_retention(caller: Admin, session: DatabaseSession) -> Retention:
    """Return the policy by which old artifacts are removed; null without one."""
    return retention.get_retention(session, caller.team_id)


@router.put("/team/retention", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def set_retention(body: RetentionPolicy, caller: Admin, session: DatabaseSession) -> Retention:
    """Set the retention policy.

    It is applied within a minute, and then every minute to at most 1,000 artifacts. Use the preview first.
    """
    return retention.set_retention(session, caller, body)


@router.delete("/team/retention", responses=problems(Unauthenticated, Forbidden))
def clear_retention(caller: Admin, session: DatabaseSession) -> Retention:
    """Remove the retention policy: everything is kept from now on. Idempotent."""
    return retention.set_retention(session, caller, None)


@router.post("/team/retention/preview", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def preview_retention(body: RetentionPolicy, caller: Admin, session: DatabaseSession) -> RetentionPreview:
    """Preview the artifacts that a policy would remove now, and the reasons why the rest would stay.

    Changes nothing.
    """
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
    """List every change by the team's keys and by the server's operator, newest first."""
    return read_audit(session, caller.team_id, limit=limit, after=after, action=action, object_id=object_id)
