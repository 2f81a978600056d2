"""Routes of the measured costs of a model's parts in an engine."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from api.dependencies import DatabaseSession, Member, State, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from api.routes.discoveries import LATER, answer_later
from core.service.discoveries.requests import ask_for
from core.service.jobs import part_costs
from core.service.jobs.resolution.hub_lookup import HUB_ERRORS
from core.service.jobs.schemas import InspectBody
from secateur_wire.errors import (
    DiscoveryFailed,
    Forbidden,
    InvalidRequest,
    NotDiscovered,
    QuotaExceeded,
    Unauthenticated,
    UnknownModel,
    UnknownQueue,
    UnsupportedArchitecture,
    UnusableModel,
)
from secateur_wire.part_costs import PartCostsAnswer, PartCostsBody

router = Router(prefix="/v1/part-costs", tags=["plans"])
_ERRORS = (
    Unauthenticated,
    InvalidRequest,
    UnknownModel,
    UnknownQueue,
    UnusableModel,
    UnsupportedArchitecture,
    DiscoveryFailed,
    QuotaExceeded,
    *HUB_ERRORS,
)


@router.get("", response_model=PartCostsAnswer, responses=problems(*_ERRORS, besides={202: LATER}))
def show_part_costs(
    body: Annotated[PartCostsBody, Query()], caller: Viewer, session: DatabaseSession, state: State
) -> PartCostsAnswer | Response:
    """Return the costs of a model's parts in an engine, as far as they are measured; nothing is started.

    If the model's architecture is not listed, the answer is 202 until it is discovered.
    """
    findings = state.hub.of(caller.team_id, InspectBody.model_validate({"model": body.model}))
    try:
        return part_costs.look_up(state.request(session, caller, findings), body)
    except NotDiscovered as missing:
        return answer_later(ask_for(session, caller, missing, state.settings))


@router.post("", response_model=PartCostsAnswer, responses=problems(*_ERRORS, Forbidden, besides={202: LATER}))
def measure_part_costs(
    body: PartCostsBody, caller: Member, session: DatabaseSession, state: State
) -> PartCostsAnswer | Response:
    """Have a worker measure the costs of a model's parts in an engine, again where they are measured.

    It takes minutes, on a worker of the queue that has the engine, while it has no job: look with GET. Where the times
    differ too much, the measurement fails with `latency_too_noisy`.
    """
    findings = state.hub.of(caller.team_id, InspectBody.model_validate({"model": body.model}))
    try:
        return part_costs.measure(state.request(session, caller, findings), body)
    except NotDiscovered as missing:
        return answer_later(ask_for(session, caller, missing, state.settings))
