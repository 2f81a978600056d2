"""Registry of methods: every folder beside it whose `info` describes one. None is listed, and no torch is loaded."""

from collections.abc import Mapping

from pydantic import ValidationError

from core import methods
from core.discovery import descriptions
from core.engine.options.base import MethodParameters
from core.errors import InvalidParameters, UnknownMethod
from core.methods.method_info import MethodInfo
from core.validation import message_of

METHODS = descriptions(methods, MethodInfo)


def get_method(method_id: str) -> MethodInfo:
    """Return a method's description; raises UnknownMethod listing the ids there are."""
    try:
        return METHODS[method_id]
    except KeyError:
        raise UnknownMethod(
            f"method {method_id!r} is not known: use one of {', '.join(sorted(METHODS))}", param="method"
        ) from None


def parse_parameters(method_id: str, parameters: Mapping[str, object]) -> MethodParameters:
    """Validate a method's parameters; raises InvalidParameters with the dotted name of the first one at fault."""
    try:
        return get_method(method_id).parameters.model_validate(parameters)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(["parameters", *(str(part) for part in first["loc"])])
        known = ", ".join(get_method(method_id).parameters.model_fields)
        unknown = f"; {method_id} takes: {known}" if first["type"] == "extra_forbidden" else ""
        raise InvalidParameters(f"{where}: {message_of(first)}{unknown}", param=where) from None
