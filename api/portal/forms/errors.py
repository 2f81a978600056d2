"""Errors of a form, shown at its fields."""

from collections.abc import Collection

from pydantic import ValidationError

from core.validation import describe_error
from secateur_wire.errors import ApiError, InvalidRequest


def errors_by_field(error: ApiError | ValidationError, fields: Collection[str]) -> dict[str, str]:
    """Return the error messages by form field; under "" those without a field.

    `files.0.path` belongs to `files`, where the form has no field with the longer name.
    """
    if isinstance(error, ApiError):
        return {_field(error.param, fields): error.message}
    messages: dict[str, str] = {}
    for each in error.errors():
        param, sentence = describe_error(each)
        field = _field(param, fields)
        messages.setdefault(field, sentence.removeprefix(f"{param}: ") if field else sentence)
    return messages


def status_of(error: ApiError | ValidationError) -> int:
    """Return the HTTP status of the page that shows an error."""
    return error.status if isinstance(error, ApiError) else InvalidRequest.status


def _field(param: str | None, fields: Collection[str]) -> str:
    name = param or ""
    while name and name not in fields:
        name = name.rpartition(".")[0]
    return name
