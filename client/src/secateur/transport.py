"""One HTTP connection pool to one server: authentication, limits of time, and refusals turned into errors."""

import contextlib
import ipaddress
from collections.abc import Iterator
from importlib.metadata import version
from typing import Final, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from secateur.configuration import Configuration
from secateur.errors import ConfigurationError, UnexpectedAnswer, Unreachable, error_from

TIMEOUT: Final = httpx.Timeout(60, connect=10)
SLOW_TIMEOUT: Final = httpx.Timeout(3600, connect=10)
"""For calls that read a whole model or text on the server before they answer."""

Model = TypeVar("Model", bound=BaseModel)


class Transport:
    """Requests below `/v1/` of one server. Not for use by several threads at once while a stream is open on it."""

    def __init__(self, configuration: Configuration) -> None:
        self.url = configuration.url
        self._http = httpx.Client(
            base_url=f"{configuration.url}/v1/",
            headers={
                "Authorization": f"Bearer {configuration.api_key}",
                "User-Agent": f"secateur-python/{version('secateur')}",
            },
            timeout=TIMEOUT,
            # A proxy of the environment cannot reach this machine's own loopback.
            trust_env=not _is_loopback(httpx.URL(configuration.url).host),
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, answer: type[Model], *, params: dict[str, str | int] | None = None) -> Model:
        return self._call("GET", path, answer, params=params)

    def post(
        self,
        path: str,
        answer: type[Model],
        *,
        body: dict[str, JsonValue] | None = None,
        idempotency_key: str | None = None,
        timeout: httpx.Timeout = TIMEOUT,
    ) -> Model:
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self._call("POST", path, answer, body=body, headers=headers, timeout=timeout)

    @contextlib.contextmanager
    def stream(self, path: str, *, headers: dict[str, str], follow_redirects: bool = False) -> Iterator[httpx.Response]:
        """An answer whose body is read piece by piece. Refusals raise ApiError; broken connections httpx's errors.

        Redirects lose the API key when they lead to another host.
        """
        with self._http.stream("GET", path, headers=headers, follow_redirects=follow_redirects) as response:
            if response.is_error:
                response.read()
                raise error_from(response)
            if response.is_redirect:
                raise self._moved(response)
            yield response

    def unreachable(self, error: httpx.TransportError) -> Unreachable:
        """What a broken or refused connection means to the user."""
        if isinstance(error, httpx.ConnectTimeout):
            return Unreachable(
                f"{self.url} did not answer in {TIMEOUT.connect:.0f} s: check SECATEUR_URL and the network"
            )
        if isinstance(error, httpx.ConnectError):
            return Unreachable(
                f"no Secateur server answers at {self.url} ({error}): start one here with `secateur serve`, or set "
                "SECATEUR_URL to the address of one that runs"
            )
        if isinstance(error, httpx.TimeoutException):
            return Unreachable(f"{self.url} took the request but did not answer in time; it may still act on it")
        return Unreachable(f"the connection to {self.url} broke: {error or type(error).__name__}")

    def _call(
        self,
        method: str,
        path: str,
        answer: type[Model],
        *,
        params: dict[str, str | int] | None = None,
        body: dict[str, JsonValue] | None = None,
        headers: dict[str, str] | None = None,
        timeout: httpx.Timeout = TIMEOUT,
    ) -> Model:
        try:
            response = self._http.request(method, path, params=params, json=body, headers=headers, timeout=timeout)
        except httpx.TransportError as error:
            raise self.unreachable(error) from error
        except (ValueError, TypeError) as error:  # raised while encoding: NaN, or a value JSON has no form for
            raise ConfigurationError(f"the request cannot be written as JSON: {error}") from error
        if response.is_error:
            raise error_from(response)
        if response.is_redirect:
            raise self._moved(response)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the body"
            raise UnexpectedAnswer(
                f"{response.url} did not answer as Secateur does ({where}: {first['msg']}): check SECATEUR_URL, and "
                "that client and server are of the same release"
            ) from error

    def _moved(self, response: httpx.Response) -> UnexpectedAnswer:
        return UnexpectedAnswer(
            f"{response.url} redirects to {response.headers.get('Location')}: set SECATEUR_URL to where the server is"
        )


def segment(text: str) -> str:
    """`text` as one segment of a path; raises ConfigurationError for what a path would take for another place."""
    if text in {"", ".", ".."}:
        raise ConfigurationError(f"{text!r} is not an id: ids look like job_01ARZ3NDEKTSV4RRFFQ69G5FAV")
    return quote(text, safe="")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
