"""Forms of triggers, as bodies that the API takes."""

import json
from typing import Any, Final

from api.http.bodies import parse_body
from api.portal.session import Form
from core.errors import InvalidRequest
from core.service.triggers.schemas import TriggerBody, TriggerChanges

FIELDS: Final = (
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
EXAMPLE: Final = {name: json.dumps(value, indent=2) for name, value in _WRITTEN.items()}
"""Values that a new form begins with."""


def trigger_of(form: Form) -> TriggerBody:
    """Return the body that the form means.

    Raises InvalidRequest where a field is not JSON, pydantic's ValidationError where the body is not valid.
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


def form_of(body: TriggerBody) -> dict[str, str]:
    """Return the values of a form that means a trigger's definition."""
    document = body.model_dump(mode="json", exclude_none=True)
    values = {name: str(document.get(name, "")) for name in ("name", "description", "event_id")}
    values |= {name: json.dumps(document.get(name, {}), indent=2, ensure_ascii=False) for name in _WRITTEN}
    for part in ("schedule", "hub"):
        values |= {f"{part}.{name}": str(value) for name, value in document.get(part, {}).items()}
    return values | {"signing": "1" if body.signing else ""}


def changes_of(form: Form, now: TriggerBody) -> TriggerChanges | None:
    """Return what a form changes in a trigger's definition, None where it changes nothing; raises as `trigger_of`."""
    wanted = trigger_of(form).model_copy(update={"enabled": now.enabled})
    fields = {name: value for name, value in dict(wanted).items() if value != getattr(now, name)}
    return TriggerChanges.model_validate(fields) if fields else None


def typed(form: Form) -> dict[str, str]:
    """Return the typed values, to show the form with them again."""
    return {name: form.get(name) for name in FIELDS}


def payload_of(form: Form) -> tuple[Any, bytes]:
    """Return the payload that was typed, parsed and as bytes. Raises InvalidRequest where it is not JSON."""
    return _json(form, "payload", {}), form.get("payload").encode()


def _json(form: Form, name: str, empty: Any) -> Any:
    text = form.get(name)
    if not text:
        return empty
    try:
        return parse_body(text.encode())
    except InvalidRequest as error:
        raise InvalidRequest(error.message.replace("the body", name), param=name) from None
