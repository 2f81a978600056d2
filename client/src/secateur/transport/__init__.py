"""HTTP transport to one server: authentication, timeouts, retries, and errors from refusals.

`retries.py` decides which calls are repeated and when, and `problems.py` turns refusals into errors. Nothing here
depends on a particular call.

Every call may reach the server twice: those that make something carry an idempotency key, and all others leave the
server as one call would. So each call is repeated after a connection that failed or broke, and after 408, 429, 502, 503
and 504.
"""

import contextlib
import ipaddress
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from secateur.configuration import Configuration
from secateur.errors import ApiError, ConfigurationError, NotFound, Unauthenticated, UnexpectedAnswer, Unreachable
from secateur.transport.problems import error_from
from secateur.transport.retries import RetryPolicy

CONNECT_SECONDS: Final = 10.0
SLOW_SECONDS: Final = 3600.0
"""Timeout of calls for which the server reads a whole model or text before it answers."""

Answer = TypeVar("Answer", bound=BaseModel)
Result = TypeVar("Result")


class CallContents(TypedDict, total=False):
    """Contents of a call: a JSON `body` or `content` of bytes, and the query's `params`.

    A `slow` call is one for which the server reads a whole model or text before it answers.
    """

    params: Mapping[str, str | int]
    body: Mapping[str, JsonValue]
    content: bytes
    idempotency_key: str
    slow: bool


class Transport:
    """Requests below `/v1/` of one server, for one thread at a time."""

    def __init__(self, configuration: Configuration, retry_policy: RetryPolicy) -> None:
        self.url = configuration.url
        self._configuration = configuration
        self._retry_policy = retry_policy
        self._http = httpx.Client(
            base_url=f"{configuration.url}/v1/",
            headers={
                "Authorization": f"Bearer {configuration.api_key}",
                "User-Agent": f"secateur-python/{version('secateur')}",
            },
            timeout=self._timeout(),
            # A proxy from the environment cannot reach this machine's own loopback address.
            trust_env=not is_loopback(httpx.URL(configuration.url).host),
        )

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, answer: type[Answer], **sent: Unpack[CallContents]) -> Answer:
        """Make one call and return its answer, parsed as `answer`. Raises `secateur.errors`."""
        response = self._exchange(method, path, **sent)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise _unexpected(response, error) from error

    def delete(self, path: str) -> None:
        """Delete the object at `path`; raises NotFound unless an earlier try of this call may have deleted it."""
        try:
            self._exchange("DELETE", path)
        except NotFound as error:
            if not error.repeated:
                raise

    def _exchange(self, method: str, path: str, **sent: Unpack[CallContents]) -> httpx.Response:
        parts: dict[str, Any] = {"params": sent.get("params"), "headers": {}}
        if "body" in sent:
            parts["json"] = sent["body"]
        if "content" in sent:
            parts["content"] = sent["content"]
            parts["headers"]["Content-Type"] = "application/octet-stream"
        if "idempotency_key" in sent:
            parts["headers"]["Idempotency-Key"] = sent["idempotency_key"]
        if sent.get("slow"):
            parts["timeout"] = self._timeout(SLOW_SECONDS)

        def attempt() -> httpx.Response:
            response = self._http.send(self._request(method, path, parts))
            if response.is_error:
                raise self._refusal(response)
            if response.is_redirect:
                raise _moved(response)
            return response

        return self._persistently(attempt)

    @contextlib.contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str], follow_redirects: bool = False, quiet_seconds: float = 0
    ) -> Iterator[httpx.Response]:
        """Yield an answer to be read piece by piece.

        Opening it raises `secateur.errors`, and reading it httpx's TransportError. Redirects to another host drop the
        API key. `quiet_seconds` is the allowed time without data; it replaces the timeout of other calls.
        """
        parts = {"headers": dict(headers), "timeout": self._timeout(quiet_seconds)}

        def attempt() -> httpx.Response:
            request = self._request("GET", path, parts)
            response = self._http.send(request, stream=True, follow_redirects=follow_redirects)
            with contextlib.ExitStack() as opening:
                opening.callback(response.close)
                if response.is_error:
                    response.read()
                    raise self._refusal(response)
                if response.is_redirect:
                    raise _moved(response)
                opening.pop_all()
            return response

        with contextlib.closing(self._persistently(attempt)) as response:
            yield response

    def _refusal(self, response: httpx.Response) -> ApiError:
        error = error_from(response)
        if isinstance(error, Unauthenticated):
            error.hint = self._configuration.named_key
        return error

    def unreachable(self, error: httpx.TransportError) -> Unreachable:
        """Return the error for a broken or refused connection, with advice for the user."""
        if isinstance(error, httpx.ConnectTimeout):
            return Unreachable(f"{self.url} did not answer in time: check SECATEUR_URL and the network")
        if isinstance(error, httpx.ConnectError):
            return Unreachable(
                f"no Secateur server answers at {self.url} ({error}): start one here with `secateur serve`, or set "
                "SECATEUR_URL to the address of one that runs"
            )
        if isinstance(error, httpx.TimeoutException):
            return Unreachable(f"{self.url} took the request but did not answer in time; it may still act on it")
        return Unreachable(f"the connection to {self.url} broke: {error or type(error).__name__}")

    def _timeout(self, at_least: float = 0) -> httpx.Timeout:
        seconds = self._retry_policy.timeout
        return httpx.Timeout(max(seconds, at_least), connect=min(seconds, CONNECT_SECONDS))

    def _request(self, method: str, path: str, parts: Mapping[str, Any]) -> httpx.Request:
        try:
            return self._http.build_request(method, path, **parts)
        except (ValueError, TypeError) as error:  # NaN, or a value that JSON cannot express.
            raise ConfigurationError(f"the request cannot be written as JSON: {error}") from error

    def _persistently(self, attempt: Callable[[], Result]) -> Result:
        broke = False
        for tried in itertools.count():
            try:
                return attempt()
            except (httpx.TransportError, ApiError) as error:
                pause = self._retry_policy.pause(error, tried)
                failure: ApiError | Unreachable
                if isinstance(error, ApiError):
                    failure, error.repeated = error, broke
                else:
                    failure, broke = self.unreachable(error), True
                if pause is None:
                    if failure is error:
                        raise
                    raise failure from error
            if self._retry_policy.on_retry is not None:
                self._retry_policy.on_retry(failure, pause)
            time.sleep(pause)
        raise AssertionError("unreachable")


def segment(text: str) -> str:
    """Quote `text` as one segment of a path. Raises ConfigurationError for a text that would be another path."""
    if text in {"", ".", ".."}:
        raise ConfigurationError(f"{text!r} is not an id: ids look like job_01ARZ3NDEKTSV4RRFFQ69G5FAV")
    return quote(text, safe="")


def _unexpected(response: httpx.Response, error: ValidationError) -> UnexpectedAnswer:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    return UnexpectedAnswer(
        f"{response.url} did not answer as Secateur does ({where}: {first['msg']}): check SECATEUR_URL, and that "
        "client and server are of the same release"
    )


def _moved(response: httpx.Response) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"{response.url} redirects to {response.headers.get('Location')}: set SECATEUR_URL to where the server is"
    )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself, which no proxy reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
