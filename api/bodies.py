"""Bodies are bounded, and are JSON that the rest of the service can store: checked once, before any route.

The parts of uploads are neither; their route takes them in as a stream, and bounds them itself. The portal's forms are
bounded, and read by the portal.
"""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import problem_response
from api.slow_clients import paced
from core.errors import InvalidRequest, PayloadTooLarge, SecateurError

_MAX_DEPTH = 32
_PART = re.compile(r"/v1/uploads/[A-Za-z0-9_]+/files/[A-Za-z0-9._-]+")
_FORMS = "/portal/"


class BodyLimits:
    """ASGI middleware: reads a request's body up to a limit, checks it, and hands it on.

    Answers 413 to a longer one, 408 to one that does not get here in time, 422 to one that is not JSON, is nested too
    deeply, or holds what no database stores: NaN, infinities, NUL characters and halves of surrogate pairs.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, slow_client_seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = slow_client_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        receive = paced(receive, self._seconds)
        if _PART.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            if "\0" in scope["path"] or b"\0" in unquote_to_bytes(scope["query_string"]):
                raise InvalidRequest("the address holds a NUL character")
            body = await self._read(scope, receive)
            if body and not scope["path"].startswith(_FORMS):
                check_json(body)
        except SecateurError as error:
            await problem_response(error, scope["path"])(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None where the client went away. Raises PayloadTooLarge."""
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"the body is larger than {self._max_bytes} bytes")


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def check_json(body: bytes) -> None:
    """Raises InvalidRequest where a body is not JSON that can be stored."""

    def refuse(constant: str) -> None:
        raise InvalidRequest(f"the body holds {constant}, which is not JSON")

    try:
        value: Any = json.loads(body, parse_constant=refuse)
    except RecursionError:
        raise InvalidRequest(f"the body is nested deeper than {_MAX_DEPTH} levels") from None
    except ValueError as error:  # not JSON, not UTF-8, or a number with thousands of digits
        raise InvalidRequest(f"the body is not valid JSON: {str(error)[:200]}") from None
    level = [value]
    for _ in range(_MAX_DEPTH):
        for each in level:
            if isinstance(each, str):
                _check_text(each)
            elif isinstance(each, dict):
                for name in each:
                    _check_text(name)
            elif isinstance(each, float) and each in (float("inf"), float("-inf")):
                raise InvalidRequest("the body holds a number that is too large")
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise InvalidRequest(f"the body is nested deeper than {_MAX_DEPTH} levels")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise InvalidRequest("the body holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the body holds half of a surrogate pair") from None
