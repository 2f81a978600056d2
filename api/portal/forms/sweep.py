"""The form of a new sweep, as the body it means."""

import json
from typing import Any, Final

from pydantic import JsonValue

from api.http.bodies import parse_body
from api.portal.session import Form
from core.errors import InvalidRequest

LIMITS: Final = {
    "max_perplexity_ratio": "Perplexity, at most × dense",
    "max_accuracy_drop": "Fall of top-1 accuracy, at most",
    "max_task_accuracy_drop": "Fall of task accuracy, at most",
    "max_latency_ratio": "Latency, at most × dense",
    "max_bytes_ratio": "Bytes, at most × dense",
}
FIELDS: Final = (
    "name", "model", "method", "sparsities", "varied", "calibration.dataset", "calibration.samples", "sequence_length",
    "evaluation.datasets", "evaluation.samples", "max_concurrent", "objective", "probe.samples", *LIMITS,
)  # fmt: skip


def read_sweep(form: Form) -> dict[str, Any]:
    """Return the body that the fields mean.

    A value that cannot be read as the type it should have stays text, for the body's own validation to report. Raises
    InvalidRequest where JSON is expected and missing.
    """
    job: dict[str, Any] = {"model": form.get("model")}
    length = _given(sequence_length=_number(form.get("sequence_length")))
    if calibration := form.get("calibration.dataset"):
        samples = _given(samples=_number(form.get("calibration.samples")))
        job["calibration"] = {"dataset": calibration, **samples, **length}
    if evaluated := _words(form.get("evaluation.datasets")):
        job["evaluation"] = {"datasets": evaluated, **_given(samples=_number(form.get("evaluation.samples"))), **length}
    body: dict[str, Any] = {"job": job} | _given(
        name=form.get("name") or None, max_concurrent=_number(form.get("max_concurrent"))
    )
    methods, sparsities = form.lists.get("method", []), [_number(each) for each in _words(form.get("sparsities"))]
    if form.get("kind") == "search":
        limits = {name: _number(form.get(name)) for name in LIMITS if form.get(name)}
        search: dict[str, Any] = {"objective": form.get("objective"), "subject_to": limits, "methods": methods}
        search |= {"sparsities": sparsities} if sparsities else {}
        if probed := form.get("probe.samples"):
            search["probe"] = {"samples": _number(probed)}
        body["search"] = search
    else:
        grid = {name: values for name, values in (("method", methods), ("sparsity", sparsities)) if values}
        body["grid"] = grid | _varied(form.get("varied"))
    parse_body(json.dumps(body).encode())  # the API's limits hold for forms too
    return body


def field_of(param: str | None) -> str | None:
    """Return the form's field that a `param` of the body is about."""
    if param is None:
        return None
    name = param.removeprefix("search.subject_to.").removeprefix("search.").removeprefix("job.")
    return {"methods": "method", "grid": "method", "sequence_length": "sequence_length"}.get(name, name)


def _varied(text: str) -> dict[str, Any]:
    """Parse values by path, one path a line: `parameters.block_size = [64, 128]`."""
    varied: dict[str, Any] = {}
    for line in text.splitlines():
        path, separator, written = line.partition("=")
        try:
            values = json.loads(written) if separator else None
        except ValueError:
            values = None
        if not isinstance(values, list):
            raise InvalidRequest(
                f"{line.strip()[:100]!r}: write a path and a list of values, such as parameters.block_size = [64, 128]",
                param="varied",
            )
        varied[path.strip()] = values
    return varied


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _number(text: str) -> JsonValue:
    """Return the number that a text is, the text where it is none, None where it is empty."""
    try:
        number: JsonValue = json.loads(text) if text else None
    except ValueError:
        return text
    return number if isinstance(number, int | float) else text or None


def _given(**fields: JsonValue) -> dict[str, JsonValue]:
    return {name: value for name, value in fields.items() if value is not None}
