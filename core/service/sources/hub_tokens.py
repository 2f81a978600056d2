"""Tokens for the hub: a team's own, stored encrypted and never shown, or the operator's for teams in the settings."""

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.service.sources.hub_access import PURPOSE, HubAccess
from core.service.sources.hub_tables import HubTokenRow
from core.service.sources.schemas import HubTokenBody
from core.service.teams import audit
from core.service.teams.principal import Actor, team_of
from core.service.teams.sealing import SecretCipher
from core.service.teams.tables import TeamRow
from core.settings import ALL_TEAMS, Settings
from core.validation import require_credential
from secateur_wire.teams import HubToken


def find_access(session: Session, team_id: str, settings: Settings) -> HubAccess:
    """Return the team's access to the hub; its own token comes before the operator's."""
    name, sealed = session.execute(
        select(TeamRow.name, HubTokenRow.sealed).outerjoin(HubTokenRow).where(TeamRow.id == team_id)
    ).one()
    if sealed is not None:
        return HubAccess(team_id=team_id, sealed=sealed.decode())
    teams = settings.hub_token_teams
    return HubAccess(team_id=team_id, is_lent=settings.hub_token is not None and (ALL_TEAMS in teams or name in teams))


def get_hub_token(session: Session, team_id: str, settings: Settings) -> HubToken:
    """Return the owner of the team's token, and the time when the team set its own."""
    row = session.get(HubTokenRow, team_id)
    return HubToken(
        used=find_access(session, team_id, settings).owner,
        updated_at=None if row is None else row.updated_at,
    )


def set_hub_token(
    session: Session, caller: Actor, body: HubTokenBody, *, settings: Settings, secret: bytes
) -> HubToken:
    """Store a team's own token and replace the earlier one. Raises InvalidRequest for an invalid token."""
    team_id = team_of(caller)
    plain = body.token.get_secret_value()
    require_credential("token", plain)
    values = {"sealed": SecretCipher(secret, PURPOSE).seal(plain), "updated_at": func.clock_timestamp()}
    session.execute(
        insert(HubTokenRow)
        .values(team_id=team_id, **values)
        .on_conflict_do_update(index_elements=[HubTokenRow.team_id], set_=values)
    )
    audit.note(session, caller, "hub_token.set", team_id)
    return get_hub_token(session, team_id, settings)


def remove_hub_token(session: Session, caller: Actor, settings: Settings) -> HubToken:
    """Remove a team's own token. Idempotent."""
    team_id = team_of(caller)
    removed = session.scalar(delete(HubTokenRow).where(HubTokenRow.team_id == team_id).returning(HubTokenRow.team_id))
    if removed is not None:
        audit.note(session, caller, "hub_token.remove", team_id)
    return get_hub_token(session, team_id, settings)
