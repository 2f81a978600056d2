"""Facts kept of every request: its id, who sent it, which route answered, the status, and how long that took."""

import re
import time
from typing import Any

import structlog
from prometheus_client import Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import telemetry
from core.database import new_id

REQUEST_ID = "X-Request-Id"
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_UNROUTED = "-"
"""Route of requests that no route answered: their paths are anybody's invention, and would be labels without end."""
_QUIET = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds by machines: logged only where they fail."""

REQUEST_SECONDS = Histogram(
    "secateur_request_seconds",
    "Time to the first byte of the answer (streams and downloads go on after it).",
    ["method", "route", "status"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})

log = structlog.get_logger()


class Requests:
    """ASGI middleware, outermost, that gives each request an id and logs one line when its answer is complete.

    A sane X-Request-Id is taken over, else one is made; it is bound to every log line, with the address the request
    came from, kept by what the request creates, and sent back. The route and the principal are found in the scope,
    where routing and authentication leave them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given_id = headers.get(REQUEST_ID, "")
        request_id = given_id if _SANE_ID.fullmatch(given_id) else new_id("req")
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id, address=_address(scope))
        with telemetry.span(f"{scope['method']}", kind="server", parent=headers.get("traceparent")) as span:
            if span is not None:
                structlog.contextvars.bind_contextvars(trace=telemetry.trace_id(telemetry.current_traceparent()))
            answer = _Answer(send, request_id)
            try:
                await self._app(scope, receive, answer.send)
            finally:
                answer.completed()
                _record(scope, answer)
                if span is not None:
                    span.update_name(f"{scope['method']} {_route(scope)}")
                    span.set_attributes(
                        {
                            "http.request.method": scope["method"],
                            "http.route": _route(scope),
                            "http.response.status_code": answer.status,
                            "secateur.request_id": request_id,
                        }
                    )


class _Answer:
    """Observer of an answer as it is sent. `status` is 499 where nothing was sent: the client disconnected first."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self._started = time.perf_counter()
        self.status = 499
        self.first_byte: float | None = None
        self.last_byte: float | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.first_byte = time.perf_counter() - self._started
            MutableHeaders(scope=message)[REQUEST_ID] = self._request_id
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.completed()

    def completed(self) -> None:
        """Note the end of the answer: background tasks run after it, and are not part of the request's time."""
        if self.last_byte is None:
            self.last_byte = time.perf_counter() - self._started


def _route(scope: Scope) -> str:
    """Return the route's template, such as /v1/jobs/{job_id}; the portal's with the path it is mounted at."""
    path = getattr(scope.get("route"), "path", None)
    return _UNROUTED if path is None else f"{scope.get('root_path', '')}{path}"


def _address(scope: Scope) -> str | None:
    """Return the address of the client; behind a proxy that uvicorn trusts, the address that the proxy names."""
    client = scope.get("client")
    return client[0] if client else None


def _record(scope: Scope, answer: _Answer) -> None:
    assert answer.last_byte is not None
    route, seconds = _route(scope), answer.last_byte
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    REQUEST_SECONDS.labels(method, route, answer.status).observe(
        seconds if answer.first_byte is None else answer.first_byte
    )
    if route in _QUIET and answer.status < 500:
        return
    principal: Any = scope.get("state", {}).get("principal")
    log.info(
        "request",
        method=method,
        route=route,
        status=answer.status,
        ms=round(seconds * 1000, 1),
        team=getattr(principal, "team_id", None),
        key=getattr(principal, "key_id", None),
    )
