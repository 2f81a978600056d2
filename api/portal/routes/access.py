"""Pages for admins about who acts for the team besides its keys: pipelines by rules, and people by their accounts."""

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.dependencies import After, DatabaseSession, State
from api.portal.forms.errors import errors_by_field, status_of
from api.portal.rendering import page
from api.portal.session import CSRF_FIELD, Admin, Posted, Visit
from core.database import transaction
from core.service.teams import people, workload_rules
from core.service.teams.schemas import WorkloadRuleBody
from secateur_wire.errors import ApiError, InvalidRequest
from secateur_wire.job_options import pairs

router = APIRouter(prefix="/team")

_PAGE = 25


@router.get("/people")
def list_people(request: Request, caller: Admin, session: DatabaseSession, after: After = None) -> Response:
    known = people.list_people(session, caller.team_id, limit=_PAGE, after=after)
    visit = Visit(request, session, caller)
    context = {"people": known, "own_person": caller.person_id, "after": after, "provider": visit.state.openid}
    return page(request, "team/people.html", context)


@router.get("/pipelines")
def list_rules(request: Request, caller: Admin, session: DatabaseSession, after: After = None) -> Response:
    return _rules_page(Visit(request, session, caller), {}, after=after)


@router.post("/pipelines")
def create_rule(request: Request, caller: Admin, state: State, posted: Posted) -> Response:
    values = {name: value for name, value in posted.fields.items() if name != CSRF_FIELD}
    try:
        lines = (line.strip() for line in posted.get("claims").splitlines() if line.strip())
        body = WorkloadRuleBody.model_validate({**values, "claims": pairs(lines, "claims", "NAME=VALUE, one a line")})
        with transaction(state.sessions) as session:
            rule = workload_rules.create_rule(session, caller, body, state.settings)
    except (ApiError, ValueError) as error:  # ValidationError is a ValueError too
        shown = error if isinstance(error, ApiError | ValidationError) else InvalidRequest(str(error), param="claims")
        with transaction(state.sessions) as session:
            return _rules_page(Visit(request, session, caller), values, error=shown)
    return RedirectResponse(f"/portal/team/pipelines#{rule.id}", 303)


@router.post("/pipelines/{rule_id}/delete")
def delete_rule(rule_id: str, caller: Admin, state: State) -> Response:
    with transaction(state.sessions) as session:
        workload_rules.delete_rule(session, caller, rule_id)
    return RedirectResponse("/portal/team/pipelines", 303)


def _rules_page(
    visit: Visit, values: dict[str, str], *, after: str | None = None, error: ApiError | ValidationError | None = None
) -> Response:
    settings, team_id = visit.state.settings, visit.caller.team_id
    context = {
        "rules": workload_rules.list_rules(visit.session, team_id, limit=_PAGE, after=after),
        "issuers": [(each, each) for each in settings.workload_issuers],
        "audience": workload_rules.audience_of(team_id),
        "key_seconds": settings.workload_key_seconds,
        "values": values,
        "errors": {} if error is None else errors_by_field(error, tuple(WorkloadRuleBody.model_fields)),
        "after": after,
    }
    return page(visit.request, "team/pipelines.html", context, status=200 if error is None else status_of(error))
