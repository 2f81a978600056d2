"""Job bodies as the fields of a form, and back.

A field is named by its dotted path in the body, and its type comes from the body's JSON schema. An empty field is left
out.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from api.http.bodies import parse_body
from api.portal.forms.job_fields import job_fields, json_or_text, one_a_line, read_value, write_value
from api.portal.session import Form
from core.engine.recovery.request import RECOVERIES
from core.methods.registry import METHODS
from core.service.jobs.schemas import JobBody
from secateur_wire.body_fields import Field
from secateur_wire.job_fields import LEADING, Entry

PARAMETERS: Final = "parameters."
METADATA: Final = "metadata"


def read_body(form: Form) -> dict[str, Any]:
    """Return the body of these fields.

    A value that cannot be converted to its type stays text, and the body's own validation reports it. Raises
    InvalidRequest where a field requires JSON or NAME=VALUE, and for any body that the service refuses as JSON.
    """
    known = job_fields(form.get("method"), form.get("pattern"))
    body: dict[str, Any] = {}
    for name, values in form.lists.items():
        field = known.get(name)
        if field is not None:
            _put(body, name, read_value(field, values))
        elif name.startswith(PARAMETERS):
            body.setdefault("parameters", {})[name.removeprefix(PARAMETERS)] = json_or_text(values[-1])
        elif name.startswith(f"{METADATA}."):
            body.setdefault(METADATA, {})[name.removeprefix(f"{METADATA}.")] = values[-1]
    for part, leading in LEADING.items():
        *outer, own = part.split(".")
        holder = body
        for each in outer:
            holder = holder.get(each, {})
        if own in holder and leading.removeprefix(f"{part}.") not in holder[own]:
            del holder[own]
    parse_body(json.dumps(body).encode())  # The API's limits apply to forms too.
    return body


def _put(body: dict[str, Any], name: str, value: Any) -> None:
    if name == METADATA:
        body[METADATA] = body.get(METADATA, {}) | value
        return
    *parts, own = name.split(".")
    holder = body
    for part in parts:
        holder = holder.setdefault(part, {})
    holder[own] = value


def lines_of(form: Form, name: str) -> list[str]:
    """Return the texts of a field that takes several."""
    return one_a_line(form.lists.get(name, []))


def form_of(body: Mapping[str, Any]) -> Form:
    """Return the fields of a body: `read_body` of them gives the same body."""
    known = job_fields(str(body.get("method", "")), body.get("pattern"))
    lists: dict[str, list[str]] = {}
    for name, value in _leaves(body):
        texts = write_value(known.get(name) or Field(Entry(name), "loose"), value)
        if texts:
            lists[name] = texts
    return Form(lists)


def _leaves(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in body.items():
        if isinstance(value, Mapping) and name != METADATA:
            for own, inner in value.items():
                path = f"{name}.{own}"
                is_part = path in LEADING and isinstance(inner, Mapping)
                yield from ((f"{path}.{each}", leaf) for each, leaf in inner.items()) if is_part else [(path, inner)]
        else:
            yield name, value


def field_for_param(param: str | None, names: Mapping[str, Any]) -> str | None:
    """Return the field of an error's `param`: the field itself, the one that contains it, or the first in that part."""
    if param is None:
        return None
    shorter = param
    while shorter:
        if shorter in names:
            return shorter
        shorter = shorter.rpartition(".")[0]
    part = param.partition(".")[0]
    leading = LEADING.get(part, "")
    return leading if leading in names else next((name for name in names if name.startswith(f"{param}.")), None)


def minimal(body: JobBody) -> dict[str, Any]:
    """Return the body without the values that equal their defaults."""
    least: dict[str, Any] = body.model_dump(mode="json", exclude_defaults=True, exclude={"parameters"})
    recovery = body.recovery
    if recovery and RECOVERIES[recovery.method].adapters == "unless null" and "lora" in recovery.model_fields_set:
        least["recovery"].setdefault("lora", None)  # It trains every parameter; without it, adapters are trained.
    parameters = _minimal_parameters(body)
    if parameters:
        least["parameters"] = parameters
    order = list(JobBody.model_fields)
    return dict(sorted(least.items(), key=lambda item: order.index(item[0])))


def _minimal_parameters(body: JobBody) -> dict[str, Any]:
    """Return the parameters that differ from their defaults; all of them while they are invalid."""
    given = body.parameters
    least = dict(given)
    if body.method not in METHODS:
        return least
    parse = METHODS[body.method].variant(body.pattern).parameters.model_validate
    try:
        parsed = parse(least)
        for name in given:
            without = {other: value for other, value in least.items() if other != name}
            if parse(without).model_dump() == parsed.model_dump():
                least = without
    except ValueError:
        return dict(given)
    return least
