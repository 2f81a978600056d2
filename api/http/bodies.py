"""JSON bodies of requests: parsed within limits, and in a thread where they are long."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from core.untrusted_json import JsonLimitExceeded, JsonLimits, parse_json
from secateur_wire.errors import InvalidRequest

BODY_LIMITS: Final = JsonLimits(values=10_000, levels=32)
"""Limits of a body: the longest one announces an upload of 2,000 files, and has 8,000 values."""
QUICK_BYTES: Final = 4096
"""Longest text that is parsed in the event loop: it takes less time than a change of threads."""

Parsed = TypeVar("Parsed")


async def read_body(request: Request) -> bytes:
    """Return a request's body.

    Raises PayloadTooLarge, SlowRequest, and InvalidRequest where the client has disconnected.
    """
    try:
        return await request.body()
    except ClientDisconnect:
        raise InvalidRequest("the connection ended before the body did") from None


async def parsed(body: bytes, parse: Callable[[bytes], Parsed], slots: CapacityLimiter) -> Parsed:
    """Return `parse` of a body, in one of a few threads unless it is short; raises the errors of `parse`.

    These threads are used for nothing else: long bodies wait for each other, and delay no other work.
    """
    if len(body) <= QUICK_BYTES:
        return parse(body)
    return await to_thread.run_sync(parse, body, limiter=slots)


def parse_body(body: bytes) -> Any:
    """Parse JSON that the rest of the service can store.

    Raises InvalidRequest for invalid JSON, for too many values or levels, and for values that the database cannot
    store: NaN, infinities, NUL characters and unpaired surrogates.
    """

    def refuse(constant: str) -> None:
        raise InvalidRequest(f"the body holds {constant}, which is not JSON")

    try:
        value = parse_json(body, BODY_LIMITS, members=dict, constant=refuse)
    except JsonLimitExceeded as error:
        raise InvalidRequest(f"the body {error.reason}") from None
    except ValueError as error:  # Not JSON, not UTF-8, or a number with thousands of digits.
        raise InvalidRequest(f"the body is not valid JSON: {str(error)[:200]}") from None
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += each.keys()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, str):
            _check_text(each)
        elif isinstance(each, float) and each in (float("inf"), float("-inf")):
            raise InvalidRequest("the body holds a number that is too large")
    return value


def _check_text(text: str) -> None:
    if "\0" in text:
        raise InvalidRequest("the body holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the body holds half of a surrogate pair") from None
