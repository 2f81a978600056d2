"""JSON that requests bring: parsed within limits, off the event loop where there is much of it."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from core.untrusted_json import JsonLimitExceeded, JsonLimits, parse_json
from secateur_wire.errors import InvalidRequest

BODY_LIMITS: Final = JsonLimits(values=10_000, levels=32)
"""Limits of a body: the announcement of an upload of 2,000 files, the longest body there is, has 8,000 values."""
QUICK_BYTES: Final = 4096
"""Largest text that is parsed where it is read: that takes less time than a change of threads."""

Parsed = TypeVar("Parsed")


async def read_body(request: Request) -> bytes:
    """Return a request's body. Raises PayloadTooLarge, SlowRequest, and InvalidRequest where the client is gone."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise InvalidRequest("the connection ended before the body did") from None


async def parsed(body: bytes, parse: Callable[[bytes], Parsed], slots: CapacityLimiter) -> Parsed:
    """Return what `parse` makes of a body, in one of few threads where it is not short; raises what `parse` does.

    The slots are for this alone: bodies that take long wait for each other, and no other work waits for them.
    """
    if len(body) <= QUICK_BYTES:
        return parse(body)
    return await to_thread.run_sync(parse, body, limiter=slots)


def parse_body(body: bytes) -> Any:
    """Parse JSON that the rest of the service can store.

    Raises InvalidRequest where it is not JSON, has too many values or levels, or holds what no database stores: NaN,
    infinities, NUL characters and halves of surrogate pairs.
    """

    def refuse(constant: str) -> None:
        raise InvalidRequest(f"the body holds {constant}, which is not JSON")

    try:
        value = parse_json(body, BODY_LIMITS, members=dict, constant=refuse)
    except JsonLimitExceeded as error:
        raise InvalidRequest(f"the body {error.reason}") from None
    except ValueError as error:  # not JSON, not UTF-8, or a number with thousands of digits
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
