"""Conversion of answers that refuse a call into errors."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from secateur.errors import (
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


def _named(kind: type[ApiError]) -> Iterator[tuple[str, type[ApiError]]]:
    for each in kind.__subclasses__():
        yield re.sub(r"(?<=[a-z])(?=[A-Z])", "_", each.__name__).lower(), each
        yield from _named(each)


BY_CODE: Final[Mapping[str, type[ApiError]]] = {
    code: kind for code, kind in _named(ApiError) if kind not in {*BY_STATUS.values(), ServerError}
}
"""Every class below those of a status, under the code it is named after: `UnknownModel` is `unknown_model`."""


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

    The code decides its class where it stands for one that fits the status, else the status does. Without a problem
    document (a proxy's page) `code` is `http_<status>` and `detail` the start of the body.
    """
    status = response.status_code
    by_status = BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    retry_after = _seconds(response.headers.get("Retry-After"))
    request_id = response.headers.get("X-Request-Id")
    try:
        problem = _ProblemDocument.model_validate_json(response.content)
    except ValidationError:
        detail = f"{response.url} answered {status} {response.reason_phrase}"
        text = " ".join(response.text.split())[:200]
        return by_status(
            status=status,
            code=f"http_{status}",
            title=response.reason_phrase,
            detail=f"{detail}: {text}" if text else detail,
            retry_after=retry_after,
            request_id=request_id,
        )
    by_code = BY_CODE.get(problem.code, by_status)
    kind = by_code if issubclass(by_code, by_status) else by_status
    return kind(
        status=status,
        code=problem.code,
        title=problem.title or response.reason_phrase,
        detail=problem.detail,
        param=problem.param,
        retry_after=retry_after,
        request_id=request_id,
        members=problem.model_extra,
    )


def _seconds(header: str | None) -> float | None:
    """Parse Retry-After as our server sends it; a date, as a proxy might, is left to the client's own pauses."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else None
