"""Everything the client raises.

SecateurError
├── ConfigurationError      no API key, or a URL that is none
├── Unreachable             nothing answers at the URL, or not in time
├── UnexpectedAnswer        what answers does not speak this API
├── DownloadError           also where the job has no artifact
│   ├── UnsafeName          a file name that would leave the download folder
│   ├── ChecksumMismatch    the bytes are not those the server announced
│   └── DownloadInterrupted the connection kept breaking; the same call later goes on where it stopped
└── ApiError                the server refused, with a problem document (RFC 9457)
    ├── Unauthenticated     401
    ├── Forbidden           403
    ├── NotFound            404
    ├── Conflict            409
    ├── InvalidRequest      400, 422
    └── ServerError         5xx
"""

from typing import Final

import httpx
from pydantic import BaseModel, ValidationError


class SecateurError(Exception):
    """Base of all errors of the client; its text says what was wrong and, where known, what would be right."""


class ConfigurationError(SecateurError):
    """The client was not told enough to make a request."""


class Unreachable(SecateurError):
    """No answer: connection refused, name not found, connection lost or time out."""


class UnexpectedAnswer(SecateurError):
    """An answer this API does not give."""


class DownloadError(SecateurError):
    """An artifact could not be brought here whole."""


class UnsafeName(DownloadError):
    """The server lists a file whose name would be written outside the download folder."""


class ChecksumMismatch(DownloadError):
    """The SHA-256 or size of a downloaded file is not what the server lists."""


class DownloadInterrupted(DownloadError):
    """The connection kept breaking. What arrived is kept; the same call continues from there."""


class ApiError(SecateurError):
    """The server's refusal: HTTP `status`, stable `code`, `title`, `detail`, and the `param` at fault if any."""

    def __init__(self, *, status: int, code: str, title: str, detail: str, param: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.param = param


class Unauthenticated(ApiError):
    """The API key is missing, unknown, revoked or expired."""


class Forbidden(ApiError):
    """The API key's role does not allow this."""


class NotFound(ApiError):
    """There is no such thing, or it belongs to another team."""


class Conflict(ApiError):
    """The state of things does not allow this now."""


class InvalidRequest(ApiError):
    """What was asked cannot be meant; `param` names the field."""


class ServerError(ApiError):
    """The server, or a proxy before it, failed."""


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: InvalidRequest,
}


class _ProblemDocument(BaseModel):
    title: str | None = None
    detail: str
    code: str
    param: str | None = None


def error_from(response: httpx.Response) -> ApiError:
    """The error of an answer with status 400 or above, whose body has been read.

    Without a problem document (a proxy's page) `code` is `http_<status>` and `detail` the start of the body.
    """
    status = response.status_code
    kind = ServerError if status >= 500 else _BY_STATUS.get(status, ApiError)
    try:
        problem = _ProblemDocument.model_validate_json(response.content)
    except ValidationError:
        detail = f"{response.url} answered {status} {response.reason_phrase}"
        text = " ".join(response.text.split())[:200]
        return kind(
            status=status,
            code=f"http_{status}",
            title=response.reason_phrase,
            detail=f"{detail}: {text}" if text else detail,
        )
    return kind(
        status=status,
        code=problem.code,
        title=problem.title or response.reason_phrase,
        detail=problem.detail,
        param=problem.param,
    )
