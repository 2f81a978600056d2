"""Routes of triggers: templates of jobs that a pipeline, the hub or a schedule fires.

Their secret URLs, below `/v1/hooks`, are for pipelines and hubs, which have no API key.
"""

from typing import Annotated, Any

from fastapi import BackgroundTasks, Body, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.dependencies import After, CreateOnce, DatabaseSession, Limit, Member, State, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from api.http.trigger_payloads import PAYLOAD, IdempotencyKey, SentByMember, SentToUrl, TriggerOfUrl, firing_response
from api.routes.jobs import SUBMIT_ERRORS
from core.database import transaction
from core.service.triggers import service
from core.service.triggers.authentication import SentHeaders
from core.service.triggers.definitions import trigger_answer
from core.service.triggers.firing import fire_by_hand, fire_by_url
from core.service.triggers.schemas import (
    Firing,
    IssuedTrigger,
    RotateTriggerBody,
    Trigger,
    TriggerBody,
    TriggerChanges,
    TriggerPreview,
)
from core.service.triggers.validation import look_up_template
from secateur_wire.base import Page
from secateur_wire.errors import (
    Conflict,
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    SlowRequest,
    Unauthenticated,
    Unavailable,
)

router = Router(prefix="/v1", tags=["triggers"])


@router.get("/triggers", responses=problems(Unauthenticated, InvalidRequest))
def list_triggers(caller: Viewer, session: DatabaseSession, limit: Limit = 50, after: After = None) -> Page[Trigger]:
    """List the team's triggers, newest first, without their secrets."""
    return service.list_triggers(session, caller.team_id, limit=limit, after=after)


@router.post(
    "/triggers",
    status_code=201,
    response_model=IssuedTrigger,
    responses=problems(Unauthenticated, Forbidden, Conflict, IdempotencyConflict, *SUBMIT_ERRORS),
)
def create_trigger(body: TriggerBody, request: Request, caller: Member, state: State, once: CreateOnce) -> Response:
    """Create a trigger.

    Only this answer has its URL and its other secrets. The template is checked as far as that is possible without a
    payload.
    """
    findings = look_up_template(state.hub, caller.team_id, body)

    def create(session: Session) -> tuple[int, BaseModel]:
        return 201, service.create(
            session, caller, body, context=state.triggers, findings=findings, base_url=str(request.base_url)
        )

    return once.answer(caller, body, create)


@router.get("/triggers/{trigger_id}", responses=problems(Unauthenticated, NotFound))
def get_trigger(trigger_id: str, caller: Viewer, session: DatabaseSession) -> Trigger:
    """Return a trigger by id or name, without its secrets."""
    return trigger_answer(service.find(session, caller.team_id, trigger_id))


@router.patch(
    "/triggers/{trigger_id}", responses=problems(Unauthenticated, Forbidden, NotFound, Conflict, *SUBMIT_ERRORS)
)
def update_trigger(
    trigger_id: str, changes: TriggerChanges, request: Request, caller: Member, state: State
) -> IssuedTrigger:
    """Change the given fields; null removes a value.

    Secrets that the trigger did not need before are in the answer.
    """
    with transaction(state.sessions) as session:
        body = service.changed(session, caller.team_id, trigger_id, changes)
    findings = look_up_template(state.hub, caller.team_id, body)
    with transaction(state.sessions) as session:
        return service.update(
            session,
            caller,
            trigger_id,
            changes,
            context=state.triggers,
            findings=findings,
            base_url=str(request.base_url),
        )


@router.delete(
    "/triggers/{trigger_id}",
    status_code=204,
    response_model=None,
    responses=problems(Unauthenticated, Forbidden, NotFound),
)
def delete_trigger(trigger_id: str, caller: Member, session: DatabaseSession) -> None:
    """Delete a trigger and its history. Its URL becomes invalid, and its jobs stay."""
    service.remove(session, caller, trigger_id)


@router.post(
    "/triggers/{trigger_id}/rotate",
    status_code=201,
    response_model=IssuedTrigger,
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict, IdempotencyConflict, InvalidRequest),
)
def rotate_trigger(
    trigger_id: str,
    body: RotateTriggerBody,
    request: Request,
    caller: Member,
    state: State,
    once: CreateOnce,
) -> Response:
    """Replace secrets. Only this answer has the new ones; the old ones become invalid at once."""

    def create(session: Session) -> tuple[int, BaseModel]:
        return 201, service.rotate(
            session, caller, trigger_id, body.secrets, secret=state.secret, base_url=str(request.base_url)
        )

    return once.answer(caller, body, create)


@router.post(
    "/triggers/{trigger_id}/fire",
    status_code=201,
    response_model=Firing,
    responses=problems(
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        *SUBMIT_ERRORS,
        besides={200: {"model": Firing, "description": "The event made a job before"}},
    ),
    openapi_extra=PAYLOAD,
)
def fire_trigger(
    trigger_id: str, caller: Member, sent: SentByMember, state: State, background: BackgroundTasks
) -> Response:
    """Fire a trigger by hand, with a payload as its sender would send it; no signature is needed."""
    with transaction(state.sessions) as session:
        trigger = service.find(session, caller.team_id, trigger_id)
    state.rates.count_firing(trigger.id)
    return firing_response(fire_by_hand(state.triggers, caller, trigger, sent), state, background)


@router.post(
    "/triggers/{trigger_id}/preview",
    responses=problems(Unauthenticated, NotFound, *SUBMIT_ERRORS),
)
def preview_trigger(
    trigger_id: str,
    payload: Annotated[Any, Body()],
    caller: Viewer,
    state: State,
    idempotency_key: IdempotencyKey = None,
) -> TriggerPreview:
    """Preview the whole job that a payload would create, and an estimate of what it needs.

    No job is created.
    """
    return service.preview(state.triggers, caller, trigger_id, payload, SentHeaders(idempotency_key=idempotency_key))


@router.get("/triggers/{trigger_id}/firings", responses=problems(Unauthenticated, NotFound, InvalidRequest))
def list_firings(
    trigger_id: str, caller: Viewer, session: DatabaseSession, limit: Limit = 50, after: After = None
) -> Page[Firing]:
    """List a trigger's history, newest first: the payload, the source and the result of each firing."""
    return service.list_firings(session, caller.team_id, trigger_id, limit=limit, after=after)


@router.post(
    "/hooks/{token}",
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
    """Fire the trigger of this secret URL with a payload.

    One event creates one job. The id of the event is the header webhook-id or Idempotency-Key, the payload's value at
    the trigger's `event_id`, or, for the hub, the commit.
    """
    return firing_response(fire_by_url(state.triggers, trigger, sent), state, background)
