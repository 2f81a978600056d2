"""Pages of the team's triggers and their firings; members create, change and fire them."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter, BackgroundTasks, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.dependencies import After, DatabaseSession, State
from api.events.after_commit import hint_after_commit
from api.http.bodies import parse_body
from api.portal.forms.errors import errors_by_field, status_of
from api.portal.rendering import address_of, page
from api.portal.session import Form, Member, Posted, Viewer, Visit
from api.state import ApiState
from core.database import transaction
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.teams.principal import Principal
from core.service.triggers import service
from core.service.triggers.authentication import SentHeaders
from core.service.triggers.definitions import definition_of, trigger_answer
from core.service.triggers.firing import TriggerDelivery, fire_by_hand
from core.service.triggers.schemas import IssuedTrigger, RotateTriggerBody, TriggerBody, TriggerChanges
from core.service.triggers.tables import TriggerRow
from core.service.triggers.validation import look_up_template
from secateur_wire.errors import ApiError, Conflict, InvalidRequest, NotFound

router = APIRouter(prefix="/triggers")

_PAGE = 25
_SINCE = "since"
"""Field with the time of the trigger's last change when the form was shown."""
_FIELDS: Final = (
    "name",
    "description",
    "template",
    "placeholders",
    "event_id",
    "schedule.cron",
    "schedule.timezone",
    "hub.repository",
    "hub.type",
    "signing",
)
_WRITTEN = {
    "template": {
        "model": "MODEL",
        "method": "magnitude",
        "sparsity": {"$payload": "sparsity"},
        "metadata": {"commit": "${commit}"},
    },
    "placeholders": {
        "commit": {"path": "/commit/sha"},
        "sparsity": {"path": "/sparsity", "type": "number", "default": 0.5, "min": 0.1, "max": 0.9},
    },
}
_EXAMPLE: Final = {name: json.dumps(value, indent=2) for name, value in _WRITTEN.items()}
"""Initial values of a new form."""


@router.get("")
def list_triggers(request: Request, caller: Viewer, session: DatabaseSession, after: After = None) -> Response:
    triggers = service.list_triggers(session, caller.team_id, limit=_PAGE, after=after)
    return page(request, "triggers/list.html", {"triggers": triggers, "after": after})


@router.get("/new")
def new_trigger(request: Request, caller: Member) -> Response:
    return _form_page(request, _EXAMPLE)


@router.post("/new")
def create_trigger(request: Request, caller: Member, state: State, posted: Posted) -> Response:
    """Create a trigger; the answer is the only page that ever shows its secrets."""
    try:
        body = _trigger_of(posted)
        findings = look_up_template(state.hub, caller.team_id, body)
        with transaction(state.sessions) as session:
            base_url = f"{address_of(request)}/"
            issued = service.create(session, caller, body, context=state.triggers, findings=findings, base_url=base_url)
    except (ApiError, ValidationError) as error:
        return _form_page(request, _typed(posted), error=error)
    return _shown_once(request, issued)


@router.get("/{trigger_id}")
def show_trigger(
    request: Request, trigger_id: str, caller: Viewer, session: DatabaseSession, after: After = None
) -> Response:
    return _trigger_page(Visit(request, session, caller), trigger_id, after=after)


@router.get("/{trigger_id}/edit")
def edit_trigger(request: Request, trigger_id: str, caller: Member, session: DatabaseSession) -> Response:
    """Show a trigger's definition for changes."""
    row = service.find(session, caller.team_id, trigger_id)
    return _form_page(request, _form_of(definition_of(row)), row)


@router.post("/{trigger_id}/edit")
def change_trigger(request: Request, trigger_id: str, caller: Member, state: State, posted: Posted) -> Response:
    """Change a trigger, unless somebody else did since the form was shown."""
    with transaction(state.sessions) as session:
        row = service.find(session, caller.team_id, trigger_id)
    try:
        changes = _changes_of(posted, definition_of(row))
        if changes is None:
            return RedirectResponse(f"/portal/triggers/{row.id}", 303)
        findings = look_up_template(state.hub, caller.team_id, changes.applied_to(definition_of(row)))
        with transaction(state.sessions) as session:
            issued = service.update(
                session,
                caller,
                row.id,
                changes,
                context=state.triggers,
                findings=findings,
                base_url=f"{address_of(request)}/",
                unchanged_since=_moment(posted.get(_SINCE)),
            )
    except (Conflict, ApiError, ValidationError) as error:
        return _form_page(request, _typed(posted), row, error=error)
    if issued.signing_secret or issued.hub_secret:
        return _shown_once(request, issued)
    return RedirectResponse(f"/portal/triggers/{row.id}", 303)


@router.post("/{trigger_id}/fire")
def fire_trigger(
    request: Request, trigger_id: str, caller: Member, state: State, posted: Posted, background: BackgroundTasks
) -> Response:
    """Fire a trigger and redirect to the job; a refusal is shown at the payload, and in the history."""
    with transaction(state.sessions) as session:
        trigger = service.find(session, caller.team_id, trigger_id)
    try:
        state.rates.count_firing(trigger.id)
        payload, body = _payload_of(posted)
        delivery = TriggerDelivery(SentHeaders(idempotency_key=posted.get("key") or None), body, payload, len(body))
        fired = fire_by_hand(state.triggers, caller, trigger, delivery)
    except NotFound:
        raise
    except ApiError as error:
        with transaction(state.sessions) as session:
            return _trigger_page(Visit(request, session, caller), trigger_id, values=posted.fields, error=error)
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
            findings=HubFindings(),  # Its template is not checked again.
            base_url=f"{address_of(request)}/",
        )
    return RedirectResponse(f"/portal/triggers/{trigger_id}", 303)


def _moment(text: str) -> datetime:
    """Return the time in a form; raises InvalidRequest for an invalid one."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest("the form does not say since when it is unchanged: open the page again") from None


def _form_page(
    request: Request,
    values: Mapping[str, str],
    row: TriggerRow | None = None,
    *,
    error: ApiError | ValidationError | None = None,
) -> Response:
    """Render the form of a new or an existing trigger; with an `error`, with the typed values."""
    context = {
        "values": values,
        "errors": {} if error is None else errors_by_field(error, _FIELDS),
        "trigger": row,
        "since": values.get(_SINCE) or (None if row is None else row.updated_at.isoformat()),
    }
    return page(request, "triggers/form.html", context, status=200 if error is None else status_of(error))


def _shown_once(request: Request, issued: IssuedTrigger) -> Response:
    return page(request, "triggers/issued.html", {"issued": issued}, status=201)


def _trigger_page(
    visit: Visit,
    trigger_id: str,
    *,
    after: str | None = None,
    values: dict[str, str] | None = None,
    error: ApiError | None = None,
) -> Response:
    """Render the trigger's page; `error` belongs to firing it by hand, with the typed fields in `values`."""
    session, caller = visit.session, visit.caller
    row = service.find(session, caller.team_id, trigger_id)
    context: dict[str, Any] = {
        "trigger": trigger_answer(row),
        "firings": service.list_firings(session, caller.team_id, row.id, limit=_PAGE, after=after),
        "after": after,
        "values": values or {},
        "refused": error,
    }
    return page(visit.request, "triggers/page.html", context, status=200 if error is None else error.status)


def _trigger_of(form: Form) -> TriggerBody:
    """Return the body of the form.

    Raises InvalidRequest where a field is not JSON, pydantic's ValidationError where the body is invalid.
    """
    body: dict[str, Any] = {name: form.get(name) for name in ("name", "description") if form.get(name)}
    body["template"] = _json(form, "template", {})
    body["placeholders"] = _json(form, "placeholders", {})
    body["event_id"] = form.get("event_id") or None
    body["signing"] = bool(form.get("signing"))
    if form.get("schedule.cron"):
        body["schedule"] = {"cron": form.get("schedule.cron"), "timezone": form.get("schedule.timezone", "UTC")}
    if form.get("hub.repository"):
        body["hub"] = {"repository": form.get("hub.repository"), "type": form.get("hub.type", "model")}
    return TriggerBody.model_validate(body)


def _form_of(body: TriggerBody) -> dict[str, str]:
    """Return the form values of a trigger's definition."""
    document = body.model_dump(mode="json", exclude_none=True)
    values = {name: str(document.get(name, "")) for name in ("name", "description", "event_id")}
    values |= {name: json.dumps(document.get(name, {}), indent=2, ensure_ascii=False) for name in _WRITTEN}
    for part in ("schedule", "hub"):
        values |= {f"{part}.{name}": str(value) for name, value in document.get(part, {}).items()}
    return values | {"signing": "1" if body.signing else ""}


def _changes_of(form: Form, now: TriggerBody) -> TriggerChanges | None:
    """Return the form's changes to a trigger's definition, None without changes; raises as `_trigger_of`."""
    wanted = _trigger_of(form).model_copy(update={"enabled": now.enabled})
    fields = {name: value for name, value in dict(wanted).items() if value != getattr(now, name)}
    return TriggerChanges.model_validate(fields) if fields else None


def _typed(form: Form) -> dict[str, str]:
    """Return the typed values, for showing the form again."""
    return {name: form.get(name) for name in (*_FIELDS, _SINCE)}


def _payload_of(form: Form) -> tuple[Any, bytes]:
    """Return the typed payload, parsed and as bytes. Raises InvalidRequest where it is not JSON."""
    return _json(form, "payload", {}), form.get("payload").encode()


def _json(form: Form, name: str, empty: Any) -> Any:
    text = form.get(name)
    if not text:
        return empty
    try:
        return parse_body(text.encode())
    except InvalidRequest as error:
        raise InvalidRequest(error.message.replace("the body", name), param=name) from None
