"""Conversion of the server's refusals into errors."""

from collections.abc import Mapping
from typing import Final

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from secateur_wire.errors import (
    ApiError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    RangeNotSatisfiable,
    ServerError,
    SlowRequest,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from secateur_wire.job_options import option_for

BY_STATUS: Final[Mapping[int, type[ApiError]]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    408: SlowRequest,
    409: Conflict,
    413: PayloadTooLarge,
    416: RangeNotSatisfiable,
    422: InvalidRequest,
    429: TooManyRequests,
    503: Unavailable,
}


def _by_code(kind: type[ApiError]) -> dict[str, type[ApiError]]:
    kinds = {kind.code: kind}
    for each in kind.__subclasses__():
        kinds |= _by_code(each)
    return kinds


BY_CODE: Final[Mapping[str, type[ApiError]]] = _by_code(ApiError)


class _ProblemDocument(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: str | None = None
    title: str | None = None
    status: int | None = None
    instance: str | None = None
    detail: str
    code: str
    param: str | None = None


def error_from(response: httpx.Response) -> ApiError:
    """Return the error of an answer with status 400 or above, whose body has been read.

    The code decides the error's class if it belongs to one that fits the status; otherwise the status decides. Without
    a problem document (a proxy's page), `code` is `http_<status>` and `detail` the start of the body. If the field at
    fault is an object of a job body, the text names the option of `secateur submit` for it.
    """
    status = response.status_code
    by_status = BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    try:
        problem = _ProblemDocument.model_validate_json(response.content)
    except ValidationError:
        detail = f"{response.url} answered {status} {response.reason_phrase}"
        text = " ".join(response.text.split())[:200]
        error = by_status(f"{detail}: {text}" if text else detail)
        error.code, error.title = f"http_{status}", response.reason_phrase
    else:
        by_code = BY_CODE.get(problem.code, by_status)
        kind = by_code if issubclass(by_code, by_status) else by_status
        error = kind(problem.detail, param=problem.param, members=problem.model_extra)
        error.code, error.title = problem.code, problem.title or response.reason_phrase
    error.status = status
    error.retry_after = _seconds(response.headers.get("Retry-After"))
    error.request_id = response.headers.get("X-Request-Id")
    option = option_for(error.param)
    if option is not None and isinstance(error, InvalidRequest):
        error.hint = f"`secateur submit`: {option}"
    return error


def _seconds(header: str | None) -> float | None:
    """Parse Retry-After in seconds; a date, which a proxy might send, counts as missing."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else None
