"""People who sign in with an account of the provider, and the teams that their claims give them."""

from collections.abc import Mapping
from typing import cast

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import new_id
from core.pagination import Listing, read_page
from core.service.teams import audit
from core.service.teams.openid.provider import ProviderAccount
from core.service.teams.principal import Automation, Principal
from core.service.teams.tables import MembershipRow, PersonRow, TeamRow
from secateur_wire.base import Page
from secateur_wire.teams import Person, Role

_PROVIDER = "identity-provider"

log = structlog.get_logger()


def provision(session: Session, issuer: str, account: ProviderAccount, roles: Mapping[str, Role]) -> Principal | None:
    """Return the principal of a person in the team chosen last, else in the first by name; create the person if new.

    `roles` are the roles by the teams' names, and replace those of the last sign-in: sessions in a team that is not
    among them end. None where no such team exists.
    """
    teams = {
        row.id: row.name for row in session.execute(select(TeamRow.id, TeamRow.name).where(TeamRow.name.in_(roles)))
    }
    if missing := sorted(set(roles) - set(teams.values())):
        log.warning("SECATEUR_OIDC_ROLES names teams that do not exist", teams=missing)
    if not teams:
        known = select(PersonRow.id).where(PersonRow.issuer == issuer, PersonRow.subject == account.subject)
        if (person_id := session.scalar(known.with_for_update())) is not None:
            _set_roles(session, person_id, {})
        return None
    values = {"name": account.name, "email": account.email, "signed_in_at": func.clock_timestamp()}
    new = insert(PersonRow).values(id=new_id("person"), issuer=issuer, subject=account.subject, **values)
    person = session.execute(
        new.on_conflict_do_update(index_elements=["issuer", "subject"], set_=values).returning(
            PersonRow.id, PersonRow.team_id
        )
    ).one()  # The row stays locked: two sign-ins of one person take turns.
    _set_roles(session, person.id, {team: roles[team_name] for team, team_name in teams.items()})
    chosen = person.team_id if person.team_id in teams else min(teams, key=lambda team: teams[team])
    return Principal(chosen, None, roles[teams[chosen]], person.id)


def list_people(session: Session, team_id: str, *, limit: int, after: str | None) -> Page[Person]:
    """Return the people of a team, newest first, with the roles of their last sign-ins."""
    in_team = select(MembershipRow.person_id, MembershipRow.role).where(MembershipRow.team_id == team_id)
    roles = {row.person_id: cast(Role, row.role) for row in session.execute(in_team)}

    def answer(row: PersonRow) -> Person:
        times = {"created_at": row.created_at, "signed_in_at": row.signed_in_at}
        return Person(id=row.id, name=row.name, email=row.email, role=roles[row.id], **times)

    query = select(PersonRow).where(PersonRow.id.in_(in_team.with_only_columns(MembershipRow.person_id)))
    return read_page(session, Listing(query, PersonRow, answer), limit=limit, after=after)


def _set_roles(session: Session, person_id: str, roles: Mapping[str, Role]) -> None:
    """Replace a person's roles, by the teams' ids; every change is in the audit trail of its team."""
    query = select(MembershipRow.team_id, MembershipRow.role).where(MembershipRow.person_id == person_id)
    before = {row.team_id: row.role for row in session.execute(query)}
    for team_id in sorted({*before, *roles}):
        old, new = before.get(team_id), roles.get(team_id)
        if old == new:
            continue
        if new is None:
            is_this = (MembershipRow.person_id == person_id, MembershipRow.team_id == team_id)
            session.execute(delete(MembershipRow).where(*is_this))
        else:
            added = insert(MembershipRow).values(person_id=person_id, team_id=team_id, role=new)
            session.execute(added.on_conflict_do_update(index_elements=["person_id", "team_id"], set_={"role": new}))
        audit.note(session, Automation(team_id, _PROVIDER), "membership.set", person_id, {"role": [old, new]})
