"""Log of requests: the id, the caller, the route, the status, and the duration of each."""

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
"""Name for requests without a route: their paths are arbitrary, and would make an unlimited number of labels."""
_QUIET = ("/healthz", "/readyz", "/metrics")
"""Routes that machines call every few seconds: only their failures are logged."""

REQUEST_SECONDS = Histogram(
    "secateur_request_seconds",
    "Time to the first byte of the answer (streams and downloads go on after it).",
    ["method", "route", "status"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})

log = structlog.get_logger()


class Requests:
    """Outermost ASGI middleware that gives each request an id, and logs one line when its answer is complete.

    A valid X-Request-Id is used, otherwise a new id is created. The id is bound to every log line together with the
    caller's address, stored with created objects, and sent back. Routing and authentication store the route and the
    principal in the scope.
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
    """Observer of an answer. `status` is 499 where nothing was sent because the client disconnected."""

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
        """Record the end of the answer. Background tasks run after it, and are not part of the request's time."""
        if self.last_byte is None:
            self.last_byte = time.perf_counter() - self._started


def _route(scope: Scope) -> str:
    """Return the route's template, such as /v1/jobs/{job_id}; for the portal with its mount path."""
    path = getattr(scope.get("route"), "path", None)
    return _UNROUTED if path is None else f"{scope.get('root_path', '')}{path}"


def _address(scope: Scope) -> str | None:
    """Return the client's address; behind a proxy that uvicorn trusts, the address that the proxy reports."""
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
        person=getattr(principal, "person_id", None),
    )
