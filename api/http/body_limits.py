"""Limits on the length of a request's body and on how slowly it may arrive, set once for all routes."""

import re
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problem_documents import problem_response
from api.slow_clients import paced
from core.settings import Settings
from secateur_wire.errors import InvalidRequest, PayloadTooLarge

_PART = re.compile(r"/(v1|portal)/uploads/[A-Za-z0-9_]+/files/[A-Za-z0-9._-]+")
_FIRINGS = re.compile(r"/v1/(hooks/[^/]+|triggers/[^/]+/fire)")
_FILES = re.compile(r"/portal/(models|datasets)/add/upload")


class BodyLimits:
    """ASGI middleware that limits the body a route reads. It reads nothing itself.

    Reading raises PayloadTooLarge for a longer body, and SlowRequest for a slower one. The parts of uploads are limited
    by their route. An address with a NUL character gets the answer 422.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\0" in scope["path"] or b"\0" in unquote_to_bytes(scope["query_string"]):
            refusal = problem_response(InvalidRequest("the address holds a NUL character"), scope["path"])
            await refusal(scope, receive, send)
            return
        receive = paced(receive, self._settings.slow_client_seconds)
        most = self._most_bytes(scope)
        await self._app(scope, receive if most is None else _bounded(scope, receive, most), send)

    def _most_bytes(self, scope: Scope) -> int | None:
        """Return the maximum length of a request's body; None for a part of an upload, which its route limits."""
        path = scope["path"]
        if _PART.fullmatch(path):
            return None
        if scope["method"] == "POST" and _FILES.fullmatch(path):
            return self._settings.form_upload_bytes
        if scope["method"] == "POST" and _FIRINGS.fullmatch(path):
            return self._settings.trigger_payload_bytes
        return self._settings.max_body_bytes


def _bounded(scope: Scope, receive: Receive, max_bytes: int) -> Receive:
    """Wrap `receive` so that it raises PayloadTooLarge where the actual or the announced length is too large."""
    too_large = PayloadTooLarge(f"the body is larger than {max_bytes} bytes")
    declared = Headers(scope=scope).get("content-length", "0")
    is_announced_larger = declared.isdigit() and (len(declared) > 19 or int(declared) > max_bytes)
    size = 0

    async def receive_bounded() -> Message:
        nonlocal size
        if is_announced_larger:
            raise too_large
        message = await receive()
        size += len(message.get("body", b""))
        if size > max_bytes:
            raise too_large
        return message

    return receive_bounded
