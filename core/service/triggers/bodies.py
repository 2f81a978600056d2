"""Job bodies made from a trigger and a payload."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from core.service.jobs.schemas import JobBody
from core.service.triggers.placeholders import Placeholder, read_values
from core.service.triggers.schemas import TriggerBody
from core.service.triggers.templates import fill
from core.validation import invalid_request

LABEL = "trigger"
"""Metadata key with the name of the trigger of a job, unless the template sets it."""


def body_of(trigger: TriggerBody, payload: Any) -> JobBody:
    """Return the job of a payload; raises InvalidRequest for a missing placeholder value or an invalid body."""
    values = read_values(trigger.placeholders, payload)
    try:
        return JobBody.model_validate(labelled(fill(trigger.template, values), trigger.name))
    except ValidationError as error:
        raise invalid_request(error, opening="the payload makes no job: ") from None


def labelled(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the body with the trigger's name in its metadata, unless that key is set already."""
    metadata = body.get("metadata", {})
    if not isinstance(metadata, dict) or LABEL in metadata:
        return body
    return body | {"metadata": metadata | {LABEL: name}}


def sample_of(placeholder: Placeholder) -> Any:
    """Return a sample value of the placeholder's type, to check the body; it may not match its pattern."""
    if placeholder.default is not None:
        return placeholder.default
    if placeholder.enum:
        return placeholder.enum[0]
    if placeholder.type == "boolean":
        return True
    if placeholder.type == "string":
        return "sample"
    bound = placeholder.min if placeholder.min is not None else placeholder.max
    return bound if bound is not None else 1


def samples_of(placeholders: Mapping[str, Placeholder]) -> dict[str, Any]:
    return {name: sample_of(each) for name, each in placeholders.items()}
