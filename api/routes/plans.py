"""Plans: a goal and a model, and the job that serves it."""

from starlette.responses import Response

from api.dependencies import DatabaseSession, State, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from api.routes.discoveries import LATER, answer_later
from api.routes.jobs import BODY_ERRORS
from core.service.discoveries.asking import ask_for
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
    """Turn a goal into a complete job body, with a reason for each choice and an estimate of the outcome.

    Nothing is kept or queued: `job` is for POST /v1/jobs. Every figure says what it rests on, and what is not known is
    named. Where nobody listed the model's architecture, the answer is 202 until it is discovered.
    """
    findings = state.hub.of(caller.team_id, service.looked_up(body))
    try:
        return service.plan(state.request(session, caller, findings), body)
    except NotDiscovered as missing:
        return answer_later(ask_for(session, caller, missing, state.settings))
