"""Requests to an issuer of tokens: what it says of itself, and its keys."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_network
from typing import Any, Final, Generic, TypeVar

import structlog
from authlib.oidc.discovery import get_well_known_url
from pydantic import BaseModel, ValidationError

from core.http.address_policy import AddressPolicy
from core.http.outbound import CallFailed, Limits, OutboundResponse, get
from core.untrusted_json import parse_json
from secateur_wire.errors import Unauthenticated, Unavailable, UnsafeAddress

LIMITS: Final = Limits(connect=5, read=10, total=15, body=5, body_bytes=2**20)
ANYWHERE: Final = AddressPolicy((ip_network("0.0.0.0/0"), ip_network("::/0")))
"""Policy for an issuer, which the operator named, and which is often within the operator's own network."""
FAILURE_SECONDS: Final = 5.0
WAIT_SECONDS: Final = 2.0
MOST_WAITING: Final = 8
"""Maximum number of a process's requests that wait for issuers, of some forty threads."""
_READ_AHEAD: Final = 0.5
"""Part of its time after which a value is read anew, while it is still used."""
_slots = threading.BoundedSemaphore(MOST_WAITING)

log = structlog.get_logger()


class IssuerMetadata(BaseModel):
    """Description that an issuer gives of itself (OpenID Connect Discovery, 3), as far as its keys need it."""

    issuer: str
    jwks_uri: str


Metadata = TypeVar("Metadata", bound=IssuerMetadata)
Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Value that `read` gets from an issuer, kept for `seconds`.

    It is read in a thread of its own, by one at a time, and ahead of its end. A failure is kept too, for
    FAILURE_SECONDS. Nobody waits longer than WAIT_SECONDS, and few requests wait: an issuer that hangs does not hold up
    the others.
    """

    def __init__(self, read: Callable[[], Value], seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._reading: threading.Event | None = None
        self._value: Value | None = None
        self._read_at = 0.0
        self._failure: str | None = None
        self._failed_at = 0.0

    def get(self, *, at_most: float | None = None) -> Value:
        """Return the value; it is read anew where it is older than `at_most` seconds.

        Raises Unauthenticated, and Unavailable where the issuer is slow.
        """
        with self._lock:
            age = self._clock() - self._read_at
            current = self._value if age <= (self._seconds if at_most is None else at_most) else None
            has_failed = self._failure is not None and self._clock() - self._failed_at < FAILURE_SECONDS
            if not has_failed and (current is None or age > self._seconds * _READ_AHEAD) and self._reading is None:
                self._reading = threading.Event()
                threading.Thread(target=self._read_once, args=(self._reading,), name="issuer", daemon=True).start()
            reading = self._reading
        if current is not None:
            return current
        if not has_failed and reading is not None:
            with issuer_slot():
                if not reading.wait(WAIT_SECONDS):
                    raise Unavailable("the identity provider is slow to answer: try again", retry_after=WAIT_SECONDS)
        if self._failure is not None:
            raise Unauthenticated(self._failure)
        assert self._value is not None
        return self._value

    def _read_once(self, reading: threading.Event) -> None:
        value, failure = None, None
        try:
            value = self._read()
        except Unauthenticated as error:
            failure = error.message
        except Exception as error:  # An answer of the issuer that nobody foresaw; those who wait are told.
            log.error("an identity provider's answer cannot be read", exc_info=error)
            failure = "the identity provider's answer cannot be read: tell your operator"
        with self._lock:
            if value is None:
                self._failure, self._failed_at = failure, self._clock()
            else:
                self._value, self._read_at, self._failure = value, self._clock(), None
            self._reading = None
        reading.set()


@contextmanager
def issuer_slot() -> Iterator[None]:
    """Hold one of the few requests that may wait for issuers. Raises Unavailable where there are as many already."""
    if not _slots.acquire(blocking=False):
        raise Unavailable("many requests wait for the identity provider: try again", retry_after=WAIT_SECONDS)
    try:
        yield
    finally:
        _slots.release()


def discover(issuer: str, kind: type[Metadata]) -> Metadata:
    """Return the description of an issuer. Raises Unauthenticated where it is away, or describes another."""
    content = read_json(get_well_known_url(issuer, external=True), "description")
    try:
        metadata = kind.model_validate(content)
    except ValidationError as error:
        field = error.errors()[0]["loc"][0]
        raise Unauthenticated(f"the identity provider's description of itself has no valid {field}") from None
    if metadata.issuer != issuer:
        raise Unauthenticated(
            f"the identity provider calls itself {metadata.issuer!r}, and this service's settings {issuer!r}: "
            "tell your operator"
        )
    if issuer.startswith("https://"):
        for name, value in metadata:
            if isinstance(value, str) and not value.startswith("https://"):
                raise Unauthenticated(f"the identity provider's {name} does not begin with https://")
    return metadata


def read_json(url: str, what: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON object at an address of an issuer. Raises Unauthenticated, naming `what` was asked for."""
    sent = {"Accept": "application/json", **(headers or {})}
    answer = call(lambda: get(url, sent, ANYWHERE, LIMITS))
    content = json_object(answer)
    if answer.status != 200 or content is None:
        raise Unauthenticated(f"the identity provider gives no {what} (HTTP {answer.status}): try again later")
    return content


def call(request: Callable[[], OutboundResponse]) -> OutboundResponse:
    """Return the answer to a request. Raises Unauthenticated where there is none."""
    try:
        return request()
    except CallFailed as error:
        raise Unauthenticated(f"the identity provider cannot be reached: {error}: try again later") from None
    except UnsafeAddress as error:
        raise Unauthenticated(f"the identity provider cannot be reached: {error.message}") from None


def json_object(answer: OutboundResponse) -> dict[str, Any] | None:
    """Return the JSON object of an answer, None where it is none."""
    try:
        content = parse_json(answer.body)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
