"""The OpenAPI document: what FastAPI derives from the routes, with every answer, header and example spelled out.

A route declares its answer, its body and the errors that it raises. The rest is added here, according to the kind of
route: a call with a key may answer 401, 429 and 503, one with a role 403, and one with a body 408 and 413.

**An example for a new call**: add an entry to `EXAMPLES` in a file of `api.openapi.examples`, under the name of the
request's or the answer's schema (lists of it are derived), or `"example": …` next to the `"schema"` in the route's own
`responses=`. A new error: add an entry to `PROBLEMS`. `tests/api/test_openapi.py` names each schema, call or error
without an example.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from api.http.problem_documents import CODES, PROBLEM_JSON
from api.openapi.examples import EXAMPLES, PARAMETERS
from api.openapi.problem_examples import PROBLEMS
from secateur_wire import errors
from secateur_wire.errors import ApiError
from secateur_wire.problems import Problem

TAGS = [
    {"name": "jobs", "description": "Submit a model and a method, follow the job, read its report."},
    {"name": "plans", "description": "A goal turned into a job, with reasons, and estimates that name their source."},
    {"name": "sweeps", "description": "Many jobs on one model as one thing: a grid, or a search for the cheapest."},
    {"name": "artifacts", "description": "The pruned checkpoint a job leaves, file by file."},
    {"name": "publications", "description": "Artifacts pushed to the hub or to a bucket of their owner's."},
    {"name": "models", "description": "What can be pruned, and a dry run of a job."},
    {"name": "datasets", "description": "Texts and images to calibrate and evaluate on."},
    {"name": "uploads", "description": "Models and texts sent in parts; one that was cut off is taken up again."},
    {"name": "methods", "description": "The catalogue: methods, papers, patterns, parameters."},
    {"name": "keys", "description": "API keys of the team; for admins."},
    {"name": "team", "description": "Quotas, what is used of them, and who changed what."},
    {"name": "webhooks", "description": "Addresses of the team that are told what happens to its jobs."},
    {"name": "triggers", "description": "Templates of jobs that a pipeline, the hub or the clock fires."},
    {"name": "workers", "description": "Who prunes, on what, and what they do."},
    {"name": "health", "description": "For load balancers and Prometheus; no key needed."},
]
SERVERS = [{"url": "/", "description": "The server this document came from."}]

Document = dict[str, Any]
_METHODS = ("get", "put", "patch", "post", "delete", "head", "options")
_HEADERS: dict[str, Document] = {
    "Retry-After": {"description": "Seconds after which to come back.", "schema": {"type": "integer"}, "example": 5},
    "WWW-Authenticate": {
        "description": "Always Bearer.",
        "schema": {"type": "string"},
        "example": 'Bearer realm="secateur"',
    },
    "X-Request-Id": {
        "description": "What the server's logs call this request: the one sent, or one it made.",
        "schema": {"type": "string"},
        "example": "req_01JD0000000000000000000000",
    },
    "Idempotency-Replayed": {
        "description": "true where this is the first answer to the Idempotency-Key, sent again.",
        "schema": {"type": "string", "enum": ["true"]},
        "example": "true",
    },
}
_DESCRIPTIONS = {
    "cost": "What is minimised against quality: bytes, parameters or milliseconds of the artifact.",
    "delivery_id": "Id of a delivery, from the webhook's list of deliveries.",
    "discovery_id": "Id of a discovery, from the answer that says that a model is looked at.",
    "get_dataset name": "Name of a dataset.",
    "delete_dataset name": "Name of a dataset.",
    "if-none-match": "ETag of a copy that is there already: it is not sent again if it is the same (304).",
    "if-range": "ETag of a part that is there already: the rest is sent if it is the same file, else all of it.",
    "job_id": "Id of a job.",
    "key_id": "Id of an API key, which is not the key itself.",
    "kind": "Only ids of this kind of object.",
    "limit": "Largest number of events in the answer.",
    "list_uploads status": "Only uploads in this state.",
    "method": "Only jobs of this method.",
    "model": "Name of a registered model.",
    "list_jobs model": "Only jobs on this model.",
    "name": "Name of a model.",
    "path": "Path of a file in the folder, as the list of files has it.",
    "send_part path": "Path that the file gets in the folder.",
    "prompt_tokens": "Tokens that the prefill reads.",
    "publication_id": "Id of a publication.",
    "queue": "Queue of the worker that measures, while it has no job.",
    "request_id": "Id of a request for samples, from the answer to it.",
    "rule_id": "Id of a rule, from the list of rules.",
    "status": "Only jobs in this state.",
    "sweep_id": "Id of a sweep.",
    "threads": "Threads of the engine; by default all processors of the worker.",
    "token": "Secret part of a trigger's address, from the answer that made or rotated it.",
    "trigger_id": "Id of a trigger.",
    "type": "Type of the engine's files; by default the first one.",
    "upload_id": "Id of an upload.",
    "webhook_id": "Id of a webhook.",
}
"""Descriptions of parameters that their routes do not describe, by name, or by call and name."""
_HEADER_OF_STATUS = {"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}


def operation_id(route: APIRoute) -> str:
    """Return the operation's id, which is the route's name: `submit_job`."""
    return route.name


def describe(app: FastAPI) -> None:
    """Replace `app.openapi()` by the complete document."""

    def openapi() -> Document:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=TAGS,
                servers=SERVERS,
            )
            app.openapi_schema = _completed(document)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Yield (method, path, operation) of every call."""
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                yield method, path, item[method]


def required_role(operation: Document) -> str | None:
    """Return the lowest role that a key must have; None where no key is needed."""
    security = operation.get("security")
    return cast(str, next(iter(security[0].values()))[0]) if security else None


def _completed(document: Document) -> Document:
    components = document["components"]
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["schemas"]["Problem"] = Problem.model_json_schema(mode="serialization")
    components["headers"] = _HEADERS
    components["examples"] = {code: _problem(kind) for code, kind in _by_code(ApiError).items()}
    for *_, operation in operations(document):
        _complete(operation, components["schemas"])
    return document


def _complete(operation: Document, schemas: Document) -> None:
    responses = operation["responses"]
    _name_errors(operation)
    for status, response in responses.items():
        if int(status) < 400:
            response["description"] = response["description"].replace("Successful Response", "Done.")
        names = ["X-Request-Id"]
        names += [_HEADER_OF_STATUS[status]] if status in _HEADER_OF_STATUS else []
        names += ["Idempotency-Replayed"] if status in ("200", "201") and _creates(operation) else []
        response.setdefault("headers", {}).update({name: {"$ref": f"#/components/headers/{name}"} for name in names})
        if int(status) < 400:
            for content in response.get("content", {}).values():
                _exemplify(content, operation["operationId"], schemas)
    for content in operation.get("requestBody", {}).get("content", {}).values():
        _exemplify(content, f"{operation['operationId']} body", schemas)
    for parameter in operation.get("parameters", []):
        for key, known in (("example", PARAMETERS), ("description", _DESCRIPTIONS)):
            value = _of_parameter(known, operation["operationId"], parameter["name"].lower())
            if value is not None:
                parameter.setdefault(key, value)


def _of_parameter(known: Mapping[str, Any], operation: str, name: str) -> Any:
    return known.get(f"{operation} {name}", known.get(name))


def _name_errors(operation: Document) -> None:
    """Document the errors of the route and of its kind of route, with an example for each code."""
    raised: dict[int, list[type[ApiError]]] = {}
    kinds = _by_code(ApiError)
    for response in operation["responses"].values():
        for code in response.pop(CODES, []):
            raised.setdefault(kinds[code].status, []).append(kinds[code])
    for kind in _of_its_kind(operation):
        if kind not in raised.setdefault(kind.status, []):
            raised[kind.status].insert(0, kind)
    for status, kinds_raised in sorted(raised.items()):
        response = operation["responses"].setdefault(str(status), {})
        response["description"] = "; ".join(f"{kind.title} (`{kind.code}`)" for kind in kinds_raised)
        response["content"] = {
            PROBLEM_JSON: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {kind.code: {"$ref": f"#/components/examples/{kind.code}"} for kind in kinds_raised},
            }
        }
    operation["responses"] = dict(sorted(operation["responses"].items()))


def _of_its_kind(operation: Document) -> Iterable[type[ApiError]]:
    if (role := required_role(operation)) is None:
        return
    yield errors.Unauthenticated
    if role != "viewer":
        yield errors.Forbidden
    yield errors.InvalidRequest
    yield errors.RateLimited
    yield errors.Unavailable
    if "requestBody" in operation:
        yield errors.PayloadTooLarge
        yield errors.SlowRequest


def _creates(operation: Document) -> bool:
    return any(parameter["name"].lower() == "idempotency-key" for parameter in operation.get("parameters", []))


def _exemplify(content: Document, name: str, schemas: Document) -> None:
    if "example" not in content and "examples" not in content:
        example = EXAMPLES.get(name, _example(content.get("schema", {}), schemas))
        if example is not None:
            content["example"] = example


def _example(schema: Document, schemas: Document) -> Any:
    """Return the example of a schema: its own, or for a page a list with one item; None without one."""
    name = schema.get("$ref", "").rpartition("/")[2]
    if name in EXAMPLES:
        return EXAMPLES[name]
    properties = schemas.get(name, {}).get("properties", {})
    if {"data", "has_more", "next_after"} <= set(properties):
        listed = _example(properties["data"].get("items", {}), schemas)
        return None if listed is None else {"data": [listed], "has_more": False, "next_after": None}
    return None


def _problem(kind: type[ApiError]) -> Document:
    detail, param, more = PROBLEMS.get(kind.code, (None, None, {}))
    document = Problem(
        type=f"urn:secateur:problem:{kind.code}",
        title=kind.title,
        status=kind.status,
        detail=detail or "",
        instance="/v1/jobs",
        code=kind.code,
        param=param,
        **more,
    )
    return {"summary": kind.title, "value": document.model_dump(mode="json")}


def _by_code(kind: type[ApiError]) -> dict[str, type[ApiError]]:
    """Return every error class by its code; where several classes share one, their base."""
    kinds = {kind.code: kind}
    for inner in kind.__subclasses__():
        kinds = _by_code(inner) | kinds
    return kinds
