"""The token a team's models and datasets are fetched from the hub with; for admins. It is written, and never shown."""

from api.dependencies import Admin, DatabaseSession, State
from api.http.problem_documents import problems
from api.http.routing import Router
from core.errors import Forbidden, InvalidRequest, Unauthenticated
from core.service.sources import hub_tokens
from core.service.sources.schemas import HubTokenBody
from secateur_wire.teams import HubToken

router = Router(prefix="/v1/team/hub-token", tags=["team"])


@router.get("", responses=problems(Unauthenticated, Forbidden))
def get_hub_token(caller: Admin, session: DatabaseSession, state: State) -> HubToken:
    """Return whose token the hub is asked with for the team; the token itself is never shown."""
    return hub_tokens.get_hub_token(session, caller.team_id, state.settings)


@router.put("", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def set_hub_token(body: HubTokenBody, caller: Admin, session: DatabaseSession, state: State) -> HubToken:
    """Set the team's token, in place of the one before. It is used from the next job on, and by those that wait."""
    return hub_tokens.set_hub_token(session, caller, body, settings=state.settings, secret=state.secret)


@router.delete("", responses=problems(Unauthenticated, Forbidden))
def remove_hub_token(caller: Admin, session: DatabaseSession, state: State) -> HubToken:
    """Forget the team's token. Idempotent."""
    return hub_tokens.remove_hub_token(session, caller, state.settings)
