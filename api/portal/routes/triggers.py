"""The team's triggers: what there is, what fired them, and for members making, changing and firing them."""

from typing import Any

from fastapi import APIRouter, BackgroundTasks, Request
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response

from api.dependencies import After, DatabaseSession, State
from api.events.after_commit import hint_after_commit
from api.portal.forms.errors import errors_by_field, status_of
from api.portal.forms.trigger import EXAMPLE, FIELDS, payload_of, trigger_of, typed
from api.portal.rendering import address_of, page
from api.portal.session import Member, Posted, Viewer
from api.state import ApiState
from core.database import transaction
from core.errors import NotFound, SecateurError
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.teams.principal import Principal
from core.service.triggers import service
from core.service.triggers.authentication import SentHeaders
from core.service.triggers.definitions import trigger_answer
from core.service.triggers.firing import TriggerDelivery, fire_by_hand
from core.service.triggers.schemas import IssuedTrigger, RotateTriggerBody, TriggerChanges
from core.service.triggers.validation import look_up_template

router = APIRouter(prefix="/triggers")

_PAGE = 25


@router.get("")
def list_triggers(request: Request, caller: Viewer, session: DatabaseSession, after: After = None) -> Response:
    triggers = service.list_triggers(session, caller.team_id, limit=_PAGE, after=after)
    return page(request, "triggers/list.html", {"triggers": triggers, "after": after})


@router.get("/new")
def new_trigger(request: Request, caller: Member) -> Response:
    return page(request, "triggers/new.html", {"values": EXAMPLE, "errors": {}})


@router.post("/new")
def create_trigger(request: Request, caller: Member, state: State, posted: Posted) -> Response:
    """Create a trigger; the answer is the only page that ever shows its secrets."""
    try:
        body = trigger_of(posted)
        findings = look_up_template(state.hub, caller.team_id, body)
        with transaction(state.sessions) as session:
            base_url = f"{address_of(request)}/"
            issued = service.create(session, caller, body, context=state.triggers, findings=findings, base_url=base_url)
    except (SecateurError, ValidationError) as error:
        context = {"values": typed(posted), "errors": errors_by_field(error, FIELDS)}
        return page(request, "triggers/new.html", context, status=status_of(error))
    return _shown_once(request, issued)


@router.get("/{trigger_id}")
def show_trigger(
    request: Request, trigger_id: str, caller: Viewer, session: DatabaseSession, after: After = None
) -> Response:
    return _trigger_page(request, session, caller, trigger_id, after=after)


@router.post("/{trigger_id}/fire")
def fire_trigger(
    request: Request, trigger_id: str, caller: Member, state: State, posted: Posted, background: BackgroundTasks
) -> Response:
    """Fire a trigger and redirect to the job; a refusal is shown at the payload, and in the history."""
    with transaction(state.sessions) as session:
        trigger = service.find(session, caller.team_id, trigger_id)
    try:
        state.rates.count_firing(trigger.id)
        payload, body = payload_of(posted)
        delivery = TriggerDelivery(SentHeaders(idempotency_key=posted.get("key") or None), body, payload, len(body))
        fired = fire_by_hand(state.triggers, caller, trigger, delivery)
    except NotFound:
        raise
    except SecateurError as error:
        with transaction(state.sessions) as session:
            return _trigger_page(request, session, caller, trigger_id, values=posted.fields, error=error)
    if fired.job is not None:
        hint_after_commit(background, state, fired.job)
    return RedirectResponse(f"/portal/jobs/{fired.firing.job_id}", 303)


@router.post("/{trigger_id}/enable")
def enable_trigger(request: Request, trigger_id: str, caller: Member, state: State) -> Response:
    return _switch(request, trigger_id, caller, state, enabled=True)


@router.post("/{trigger_id}/disable")
def disable_trigger(request: Request, trigger_id: str, caller: Member, state: State) -> Response:
    return _switch(request, trigger_id, caller, state, enabled=False)


@router.post("/{trigger_id}/rotate")
def rotate_trigger(request: Request, trigger_id: str, caller: Member, state: State, posted: Posted) -> Response:
    """Rotate one of a trigger's secrets; the answer is the only page that ever shows the new one."""
    body = RotateTriggerBody.model_validate({"secrets": [posted.get("secret", "url")]})
    with transaction(state.sessions) as session:
        issued = service.rotate(
            session, caller, trigger_id, body.secrets, secret=state.secret, base_url=f"{address_of(request)}/"
        )
    return _shown_once(request, issued)


@router.post("/{trigger_id}/delete")
def delete_trigger(trigger_id: str, caller: Member, session: DatabaseSession) -> Response:
    service.remove(session, caller, trigger_id)
    return RedirectResponse("/portal/triggers", 303)


def _switch(request: Request, trigger_id: str, caller: Principal, state: ApiState, *, enabled: bool) -> Response:
    with transaction(state.sessions) as session:
        service.update(
            session,
            caller,
            trigger_id,
            TriggerChanges(enabled=enabled),
            context=state.triggers,
            findings=HubFindings(),  # its template is not looked at again
            base_url=f"{address_of(request)}/",
        )
    return RedirectResponse(f"/portal/triggers/{trigger_id}", 303)


def _shown_once(request: Request, issued: IssuedTrigger) -> Response:
    return page(request, "triggers/issued.html", {"issued": issued}, status=201)


def _trigger_page(
    request: Request,
    session: Session,
    caller: Principal,
    trigger_id: str,
    *,
    after: str | None = None,
    values: dict[str, str] | None = None,
    error: SecateurError | None = None,
) -> Response:
    """Render the trigger's page; `error` is of firing it by hand, with the typed fields in `values`."""
    row = service.find(session, caller.team_id, trigger_id)
    context: dict[str, Any] = {
        "trigger": trigger_answer(row),
        "firings": service.list_firings(session, caller.team_id, row.id, limit=_PAGE, after=after),
        "after": after,
        "values": values or {},
        "refused": error,
    }
    return page(request, "triggers/page.html", context, status=200 if error is None else error.status)
