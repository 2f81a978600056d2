"""The secret URLs of triggers: for pipelines and hubs, which have no API key."""

from fastapi import BackgroundTasks
from starlette.responses import Response

from api.dependencies import State
from api.http.problem_documents import problems
from api.http.routing import Router
from api.http.trigger_answers import firing_response
from api.http.trigger_payloads import PAYLOAD, SentToUrl, TriggerOfUrl
from api.routes.jobs import SUBMIT_ERRORS
from core.errors import (
    Conflict,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    SlowRequest,
    Unauthenticated,
    Unavailable,
)
from core.service.triggers.firing import fire_by_url
from core.service.triggers.schemas import Firing

router = Router(prefix="/v1/hooks", tags=["triggers"])


@router.post(
    "/{token}",
    status_code=201,
    response_model=Firing,
    responses=problems(
        Unauthenticated,
        NotFound,
        SlowRequest,
        Conflict,
        PayloadTooLarge,
        RateLimited,
        Unavailable,
        *SUBMIT_ERRORS,
        besides={200: {"model": Firing, "description": "The event made a job before, or is none that makes one"}},
    ),
    openapi_extra=PAYLOAD,
)
def fire_hook(trigger: TriggerOfUrl, sent: SentToUrl, state: State, background: BackgroundTasks) -> Response:
    """Fire the trigger whose secret URL this is, with a payload. One event makes one job: its id is the header
    webhook-id or Idempotency-Key, what stands at the trigger's `event_id` in the payload, or, of the hub, the
    commit.
    """
    return firing_response(fire_by_url(state.triggers, trigger, sent), state, background)
