"""Checks of a trigger before it is saved.

Its template's fields must exist and its constants must be valid. If the payload decides only labels, the whole job is
checked like a submit.
"""

from contextlib import suppress
from typing import Any, Final

from pydantic import ValidationError

from core.methods.registry import get_method
from core.pipeline.recipes.validation import check_without_model
from core.service.jobs.estimates.history import estimate_that_fits
from core.service.jobs.queue_names import require_queue
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.hub_lookup import HubFindings, HubLookup
from core.service.jobs.resolution.job import request_of, resolve_job
from core.service.jobs.resolution.model import resolve_model
from core.service.jobs.schemas import InspectBody, JobBody
from core.service.jobs.undiscovered import request_discovery
from core.service.triggers.bodies import body_of, labelled, samples_of
from core.service.triggers.schemas import TriggerBody
from core.service.triggers.templates import PAYLOAD_KEY, Mention, Place, check_mentions, dotted, fill, mentions
from core.validation import message_of
from secateur_wire.errors import InvalidRequest, NotDiscovered, QuotaExceeded, SecateurError
from secateur_wire.jobs import Estimate

SCHEDULED_AT = "scheduled_at"
"""Name of the only field in the payload of a scheduled firing."""
LONGEST_TRIGGER: Final = 131_072
"""Largest number of bytes of a trigger as JSON."""


def scheduled_payload(moment: str) -> dict[str, Any]:
    return {SCHEDULED_AT: moment}


def look_up_template(hub: HubLookup, team_id: str, trigger: TriggerBody) -> HubFindings:
    """Look up a template's names on the hub, before the transaction that saves it.

    Raises InvalidRequest where its placeholders are invalid.
    """
    check_mentions(trigger.template, trigger.placeholders)
    known = _job_without_payload(trigger) or _constant_model(trigger)
    return HubFindings() if known is None else hub.of(team_id, known)


def check_trigger(context: RequestContext, trigger: TriggerBody) -> None:
    """Check a trigger; raises the InvalidRequest kind that names the fault in its template, or the look-up's error.

    For an undiscovered model the discovery is requested, and only the parts that need no model are checked.
    """
    if (size := len(trigger.model_dump_json().encode())) > LONGEST_TRIGGER:
        raise InvalidRequest(
            f"template: a trigger may have {LONGEST_TRIGGER} bytes as JSON, not {size}: register long texts as a data "
            "set, and name that",
            param="template",
        )
    mentioned = check_mentions(trigger.template, trigger.placeholders)
    _check_form(trigger)
    if trigger.schedule is not None:
        try:
            body_of(trigger, scheduled_payload("2026-03-02T09:30:00+00:00"))
        except InvalidRequest as error:
            raise InvalidRequest(
                f"schedule: a scheduled firing has no payload but /{SCHEDULED_AT}, so every other placeholder needs a "
                f"default: {error.message}",
                param="schedule",
            ) from None
    job = _job_without_payload(trigger)
    try:
        try:
            if job is not None:
                dry_run(context, job)
            else:
                _check_constants(context, trigger.template, mentioned)
        except NotDiscovered as missing:
            if job is not None:
                check_without_model(request_of(job))
            with suppress(QuotaExceeded):  # The first job of the trigger requests the discovery again.
                request_discovery(context.session, context.caller, missing, context.settings)
    except SecateurError as error:
        error.param = "template" if error.param is None else f"template.{error.param}"
        raise


def dry_run(context: RequestContext, job: JobBody) -> tuple[JobBody, Estimate]:
    """Return the body with its defaults, and its estimate; raises the errors of a submit, except for quotas."""
    require_queue(context.session, job.queue, context.settings)
    resolved = resolve_job(context, job)
    estimate = estimate_that_fits(context.session, context.team_id, resolved, context.settings).estimate
    return resolved.body, estimate


def _check_form(trigger: TriggerBody) -> None:
    """Check fields and constants, with samples instead of payload values; errors about a sample are ignored."""
    body = labelled(fill(trigger.template, samples_of(trigger.placeholders)), trigger.name)
    try:
        JobBody.model_validate(body)
    except ValidationError as error:
        for each in error.errors():
            place, node = _node_at(trigger.template, each["loc"])
            if each["type"] == "missing":
                place = each["loc"]
            elif each["type"] != "extra_forbidden" and any(mentions(node)):
                continue
            raise InvalidRequest(f"{dotted(place)}: {message_of(each)}", param=dotted(place)) from None


def _node_at(template: Any, location: Place) -> tuple[Place, Any]:
    """Return the part of the template at an error's location, without the steps that only name a union member."""
    place: Place = ()
    node = template
    for step in location:
        is_member = isinstance(node, dict) and PAYLOAD_KEY not in node and step in node
        is_item = isinstance(node, list) and isinstance(step, int) and step < len(node)
        if is_member or is_item:
            place, node = (*place, step), node[step]
    return place, node


def _job_without_payload(trigger: TriggerBody) -> JobBody | None:
    """Return the job without a payload; None where a payload decides more than labels."""
    mentioned = list(mentions(trigger.template))
    open_names = {name for name, each in trigger.placeholders.items() if each.is_required}
    if any(mention.name in open_names and mention.place[:1] != ("metadata",) for mention in mentioned):
        return None
    values = {
        name: sample if trigger.placeholders[name].is_required else trigger.placeholders[name].default
        for name, sample in samples_of(trigger.placeholders).items()
    }
    try:
        return JobBody.model_validate(labelled(fill(trigger.template, values), trigger.name))
    except ValidationError:
        return None


def _constant_model(trigger: TriggerBody) -> InspectBody | None:
    model = trigger.template.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= 300 or any(mentions(model)):
        return None
    return InspectBody(model=model)


def _check_constants(context: RequestContext, template: dict[str, Any], mentioned: list[Mention]) -> None:
    open_fields = {mention.place[0] for mention in mentioned if mention.place}
    if "method" in template and "method" not in open_fields:
        get_method(template["method"])
    if "queue" in template and "queue" not in open_fields:
        require_queue(context.session, template["queue"], context.settings)
    if "model" not in open_fields:
        resolve_model(context, template["model"])
