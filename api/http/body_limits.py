"""Limits and checks of request bodies, made once, before any route: JSON that the rest of the service can store.

The parts of uploads are neither; their route takes them in as a stream, and bounds them itself. The portal's forms are
bounded, and read by the portal; a form that holds files has a bound of its own and comes as a stream too. Payloads that
fire triggers are bounded here and checked by their route, which writes down also what it refuses.
"""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problem_documents import problem_response
from api.slow_clients import paced
from core.errors import InvalidRequest, PayloadTooLarge, SecateurError

_MAX_DEPTH = 32
_PART = re.compile(r"/(v1|portal)/uploads/[A-Za-z0-9_]+/files/[A-Za-z0-9._-]+")
_FIRINGS = re.compile(r"/v1/(hooks/[^/]+|triggers/[^/]+/fire)")
_FILES = re.compile(r"/portal/(models|datasets)/add/upload")
_FORMS = "/portal/"
_FORM = "application/x-www-form-urlencoded"


class BodyLimits:
    """ASGI middleware that reads a request's body up to a limit, checks it, and hands it on.

    Answers 413 to a longer one, 408 to one that does not get here in time, 422 to one that is not JSON, is nested too
    deeply, or holds what no database stores: NaN, infinities, NUL characters and halves of surrogate pairs.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, form_upload_bytes: int, payload_bytes: int, slow_client_seconds: float
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._payload_bytes = payload_bytes
        self._form_upload_bytes = form_upload_bytes
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
            streamed = self._streamed_bytes(scope)
            receive = _bounded(scope, receive, self._max_bytes if streamed is None else streamed)
            if streamed is not None:
                await self._app(scope, receive, send)
                return
            body = await _read(receive)
            if body and not _is_form(scope):
                check_json(body)
        except SecateurError as error:
            await problem_response(error, scope["path"])(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    def _streamed_bytes(self, scope: Scope) -> int | None:
        """Return the limit of a body that the route itself reads as a stream; None for all other routes."""
        if scope["method"] != "POST":
            return None
        if _FILES.fullmatch(scope["path"]):
            return self._form_upload_bytes
        return self._payload_bytes if _FIRINGS.fullmatch(scope["path"]) else None


def _is_form(scope: Scope) -> bool:
    sent_as = Headers(scope=scope).get("content-type", "").partition(";")[0]
    return scope["path"].startswith(_FORMS) and sent_as == _FORM


def _bounded(scope: Scope, receive: Receive, max_bytes: int) -> Receive:
    """Wrap `receive` so that it raises PayloadTooLarge where the body is longer, or is announced to be."""
    too_large = PayloadTooLarge(f"the body is larger than {max_bytes} bytes")
    declared = Headers(scope=scope).get("content-length", "0")
    size = 0

    async def receive_bounded() -> Message:
        nonlocal size
        if declared.isdigit() and int(declared) > max_bytes:
            raise too_large
        message = await receive()
        size += len(message.get("body", b""))
        if size > max_bytes:
            raise too_large
        return message

    return receive_bounded


async def _read(receive: Receive) -> bytes | None:
    """Read the whole body; return None where the client disconnected."""
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


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
    """Require that a body is JSON that can be stored. Raises InvalidRequest."""

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
