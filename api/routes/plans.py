"""Route of plans: a job body for a goal and a model."""

from starlette.responses import Response

from api.dependencies import DatabaseSession, State, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from api.routes.discoveries import LATER, answer_later
from api.routes.jobs import BODY_ERRORS
from core.service.discoveries.requests import ask_for
from core.service.jobs.resolution.hub_lookup import HUB_ERRORS
from core.service.plans import service
from secateur_wire.errors import (
    DiscoveryFailed,
    InvalidRequest,
    NotDiscovered,
    QuotaExceeded,
    Unauthenticated,
)
from secateur_wire.plans import Plan, PlanBody

router = Router(prefix="/v1/plans", tags=["plans"])


@router.post(
    "",
    response_model=Plan,
    responses=problems(
        Unauthenticated,
        InvalidRequest,
        *BODY_ERRORS,
        DiscoveryFailed,
        QuotaExceeded,
        *HUB_ERRORS,
        besides={202: LATER},
    ),
)
def make_plan(body: PlanBody, caller: Viewer, session: DatabaseSession, state: State) -> Plan | Response:
    """Return a complete job body for a goal, with a reason for each choice and an estimate of the outcome.

    Nothing is stored or queued: send `job` to POST /v1/jobs. Every figure names its evidence, and unknown figures are
    listed. If the model's architecture is not listed, the answer is 202 until it is discovered.
    """
    findings = state.hub.of(caller.team_id, service.looked_up(body))
    try:
        return service.plan(state.request(session, caller, findings), body)
    except NotDiscovered as missing:
        return answer_later(ask_for(session, caller, missing, state.settings))
