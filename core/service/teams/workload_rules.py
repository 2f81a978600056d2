"""Rules by which a team admits pipelines that show an identity token in place of a stored key."""

from collections.abc import Mapping
from typing import Any, Final, cast

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core.database import new_id
from core.pagination import Listing, read_page
from core.service.teams import audit
from core.service.teams.principal import Principal
from core.service.teams.schemas import WorkloadRuleBody
from core.service.teams.tables import ApiKeyRow, WorkloadRuleRow
from core.settings import Settings
from secateur_wire.base import Page
from secateur_wire.errors import InvalidRequest, NotFound
from secateur_wire.teams import Role, WorkloadRule

_IDENTITIES: Final = (("repository_id", "repository_owner_id"), ("project_id", "namespace_id"))
"""Claims that name a repository and its owner by ids: of GitHub, and of GitLab."""
_QUALIFIERS: Final = (
    *("ref", "ref_type", "ref_protected", "environment", "environment_protected", "deployment_tier"),
    *("event_name", "pipeline_source", "runner_environment", "job_workflow_ref", "job_workflow_sha"),
    *("enterprise_id", "actor_id", "user_id", "repository_visibility", "project_visibility"),
)
_AUDIENCE: Final = "secateur:"


def audience_of(team_id: str) -> str:
    """Return the audience that tokens for a team have: one for another team, or another service, is not accepted."""
    return f"{_AUDIENCE}{team_id}"


def team_of_audience(audience: str) -> str | None:
    """Return the id of the team that a token is meant for; None where it is meant for no team."""
    return audience.removeprefix(_AUDIENCE) if audience.startswith(_AUDIENCE) else None


def create_rule(session: Session, caller: Principal, body: WorkloadRuleBody, settings: Settings) -> WorkloadRule:
    """Create a rule. Raises InvalidRequest for an issuer that the operator did not list, and for claims without ids."""
    if body.issuer not in settings.workload_issuers:
        listed = ", ".join(settings.workload_issuers) or "none"
        raise InvalidRequest(
            f"issuer: the operator admits no tokens of {body.issuer!r} (SECATEUR_WORKLOAD_ISSUERS: {listed})",
            param="issuer",
        )
    named = next((each for each in _IDENTITIES if set(each) <= body.claims.keys()), None)
    if named is None:
        raise InvalidRequest(
            "claims: name the repository by ids that nobody else can get, with "
            + ", or with ".join(" and ".join(each) for each in _IDENTITIES),
            param="claims",
        )
    for name in body.claims:
        if name not in named and name not in _QUALIFIERS:
            raise InvalidRequest(
                f"claims: {name!r} cannot be in a rule, as names can be given to others: use "
                + ", ".join((*named, *_QUALIFIERS)),
                param="claims",
            )
    row = WorkloadRuleRow(
        id=new_id("rule"),
        team_id=caller.team_id,
        name=body.name,
        issuer=body.issuer,
        claims=body.claims,
        role=body.role,
        created_at=session.scalars(select(func.clock_timestamp())).one(),
    )
    session.add(row)
    session.flush()
    details = {"name": body.name, "issuer": body.issuer, "claims": body.claims, "role": body.role}
    audit.note(session, caller, "workload_rule.create", row.id, details)
    return _answer(row)


def list_rules(session: Session, team_id: str, *, limit: int, after: str | None) -> Page[WorkloadRule]:
    """Return the team's rules, newest first."""
    query = select(WorkloadRuleRow).where(WorkloadRuleRow.team_id == team_id)
    return read_page(session, Listing(query, WorkloadRuleRow, _answer), limit=limit, after=after)


def delete_rule(session: Session, caller: Principal, rule_id: str) -> None:
    """Delete a rule, and revoke the keys that pipelines got by it. Raises NotFound."""
    is_this = (WorkloadRuleRow.id == rule_id, WorkloadRuleRow.team_id == caller.team_id)
    row = session.scalar(select(WorkloadRuleRow).where(*is_this).with_for_update())
    if row is None:
        raise NotFound(f"there is no workload rule {rule_id!r}")
    is_valid_key = (ApiKeyRow.workload_rule_id == rule_id, ApiKeyRow.revoked_at.is_(None))
    session.execute(update(ApiKeyRow).where(*is_valid_key).values(revoked_at=func.clock_timestamp()))
    session.delete(row)
    session.flush()
    audit.note(session, caller, "workload_rule.delete", rule_id, {"name": row.name})


def find_rule(session: Session, team_id: str, issuer: str, claims: Mapping[str, Any]) -> WorkloadRuleRow | None:
    """Return the oldest rule of a team that admits a token with these claims, locked; None where no rule does."""
    query = select(WorkloadRuleRow).where(WorkloadRuleRow.team_id == team_id, WorkloadRuleRow.issuer == issuer)
    ordered = query.order_by(WorkloadRuleRow.created_at, WorkloadRuleRow.id).with_for_update(read=True)
    return next((row for row in session.scalars(ordered) if _admits(row.claims, claims)), None)


def _admits(rule: Mapping[str, str], claims: Mapping[str, Any]) -> bool:
    """Return whether all claims of a rule are those of a token; numbers are compared as they are written."""
    return all(isinstance(claims.get(name), str | int) and str(claims[name]) == value for name, value in rule.items())


def _answer(row: WorkloadRuleRow) -> WorkloadRule:
    return WorkloadRule(
        id=row.id,
        name=row.name,
        issuer=row.issuer,
        claims=row.claims,
        role=cast(Role, row.role),
        audience=audience_of(row.team_id),
        created_at=row.created_at,
    )
