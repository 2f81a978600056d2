"""Errors as RFC 9457 problem documents, and the declaration of a route's errors."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from api.process.proxies import client_address
from core.database import transient_reason
from core.validation import OBJECT_EXPECTED, describe_error, joined
from secateur_wire.base import JsonObject
from secateur_wire.errors import (
    ApiError,
    InternalError,
    InvalidRequest,
    NotFound,
    RateLimited,
    SlowRequest,
    Unauthenticated,
    Unavailable,
)
from secateur_wire.problems import Problem

log = structlog.get_logger()

_SECRET = re.compile(r"^(/v1/hooks/).+")
"""A trigger's token is left out of answers too: pipelines log them."""
PROBLEM_JSON = "application/problem+json"


@dataclass(frozen=True)
class ProblemResponse:
    """Content of an error response; `more` has further members of its problem document."""

    status: int
    title: str
    detail: str
    code: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, error: ApiError) -> "ProblemResponse":
        """Describe one of this service's own errors."""
        headers = {}
        if isinstance(error, Unauthenticated):
            headers["WWW-Authenticate"] = 'Bearer realm="secateur"'
        if isinstance(error, SlowRequest):
            headers["Connection"] = "close"  # The rest of the body is not read.
        if error.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        return cls(error.status, error.title, error.message, error.code, error.param, headers, error.members)


def problem_response(error: ApiError, instance: str) -> Response:
    """Answer an error with a problem document."""
    return _respond(ProblemResponse.of(error), instance)


def _respond(problem: ProblemResponse, instance: str) -> Response:
    document = Problem(
        type=f"urn:secateur:problem:{problem.code}",
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        instance=instance,
        code=problem.code,
        param=problem.param,
        **problem.more,
    )
    return JSONResponse(document.model_dump(mode="json"), problem.status, problem.headers, media_type=PROBLEM_JSON)


Responses = dict[int | str, dict[str, Any]]

CODES = "x-codes"
"""Key of the possible codes of a route's error status. `api.openapi` makes descriptions and examples of them."""


def problems(*errors: type[ApiError], besides: Responses | None = None) -> Responses:
    """Return the `responses=` of a route that raises these errors, grouped by status.

    Errors that every route may answer (401, 403, 413, 422, 429 and 503 where they apply) need not be listed.
    """
    declared: Responses = {}
    for error in errors:
        codes = declared.setdefault(error.status, {"description": "", CODES: []})[CODES]
        codes.append(error.code)
    for status, more in (besides or {}).items():
        declared[status] = {**declared.get(status, {}), **more}
    return declared


def _describe(error: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return (param, sentence) of a validation error; its location begins with body, query, header or path."""
    first, *rest = error["loc"] or ("body",)
    place = rest if first in ("body", "query", "header", "path") else [first, *rest]
    if error["type"] in OBJECT_EXPECTED and not place:
        return None, "the body must be a JSON object sent as application/json"
    return describe_error({**error, "loc": place})


def _invalid(errors: Sequence[Any]) -> ProblemResponse:
    descriptions = [_describe(error) for error in errors]
    message = joined([sentence for _, sentence in descriptions])
    members: JsonObject = {"errors": [{"param": param, "message": sentence} for param, sentence in descriptions]}
    return ProblemResponse.of(InvalidRequest(message, param=descriptions[0][0], members=members))


def _framework(request: Request, error: HTTPException) -> ProblemResponse:
    if error.status_code == 404:
        return ProblemResponse.of(NotFound(f"there is nothing at {request.url.path}"))
    codes = {405: ("method_not_allowed", "Method not allowed")}
    code, title = codes.get(error.status_code, (f"http_{error.status_code}", str(error.detail)))
    detail = f"{request.method} is not possible here" if error.status_code == 405 else str(error.detail)
    return ProblemResponse(error.status_code, title, detail, code, headers=dict(error.headers or {}))


def document(request: Request, problem: ProblemResponse) -> Response:
    """Answer with a problem document."""
    return _respond(problem, _SECRET.sub(r"\1…", request.url.path))


def add_handlers(app: FastAPI, answer: Callable[[Request, ProblemResponse], Response] = document) -> None:
    """Register `answer` for every error, of any route or none; it returns a problem document."""

    @app.exception_handler(ApiError)
    def _(request: Request, error: ApiError) -> Response:
        return answer(request, ProblemResponse.of(error))

    @app.exception_handler(RequestValidationError)
    def _(request: Request, error: RequestValidationError) -> Response:
        return answer(request, _invalid(error.errors()))

    @app.exception_handler(HTTPException)
    def _(request: Request, error: HTTPException) -> Response:
        return answer(request, _framework(request, error))

    @app.exception_handler(PoolTimeout)
    def _(request: Request, error: PoolTimeout) -> Response:
        return unavailable(request, "all connections to the database are in use", error)

    @app.exception_handler(DBAPIError)
    def _(request: Request, error: DBAPIError) -> Response:
        reason = transient_reason(error)
        return unexpected(request, error) if reason is None else unavailable(request, reason, error)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        log.error("unexpected error", route=_route(request), exc_info=error)
        if getattr(request.state, "principal", None) is None:  # A caller with a key was counted by it.
            try:
                request.app.state.api.rates.count_failure(client_address(request))
            except RateLimited as refusal:
                return answer(request, ProblemResponse.of(refusal))
        return answer(request, ProblemResponse.of(InternalError("an unexpected error, which was logged")))

    def unavailable(request: Request, reason: str, error: Exception) -> Response:
        log.warning("database not available", route=_route(request), error=str(error))
        return answer(request, ProblemResponse.of(Unavailable(f"{reason}: try again in a moment")))


def _route(request: Request) -> str:
    """Return the route's template for logs: the actual path may contain a trigger's token."""
    return str(getattr(request.scope.get("route"), "path", "-"))


def as_invalid_request(error: ValidationError) -> RequestValidationError:
    """Return the error of a body that a route validates itself, answered like any other validation error."""
    return RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in error.errors()])
