"""Application of the portal: its pages, their security headers, and error pages."""

from fastapi import FastAPI, Request
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problem_documents import ProblemResponse, add_handlers, document
from api.portal.rendering import is_partial, page
from api.portal.routes import (
    access,
    adding,
    compare,
    datasets,
    full_form,
    help,
    job,
    jobs,
    models,
    new,
    openid,
    publish,
    retention,
    samples,
    sign_in,
    sweeps,
    team,
    triggers,
    uploads,
    webhooks,
    workers,
)
from api.portal.routes.sign_in import ask_to_sign_in
from api.portal.static_files import STATIC, SWAGGER, StaticFolder
from secateur_wire.errors import Unauthenticated

_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Headers of every answer that does not set others.

A page uses only the portal's own files: no inline script, no inline style.
"""


def create_portal() -> FastAPI:
    """Build the portal. Its state is the API's, which the API sets as `portal.state.api`."""
    portal = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    portal.add_middleware(_Headers)
    add_handlers(portal, _error_page)
    portal.mount("/static/swagger", StaticFolder(directory=SWAGGER))
    portal.mount("/static", StaticFolder(directory=STATIC), name="static")
    for each in (
        *(access, adding, compare, datasets, full_form, help, job, jobs, models, new, openid),
        *(publish, retention, samples, sign_in, sweeps, team, triggers, uploads, webhooks, workers),
    ):
        portal.include_router(each.router)
    return portal


def _error_page(request: Request, problem: ProblemResponse) -> Response:
    """Answer an error with a page; a signed-out visitor is asked to sign in, and keeps the typed values.

    Scripts that ask for JSON get the API's problem documents.
    """
    if request.headers.get("accept") == "application/json":
        return document(request, problem)
    if problem.code == Unauthenticated.code:
        return ask_to_sign_in(request, problem)
    headers = {name: value for name, value in problem.headers.items() if name != "WWW-Authenticate"}
    if is_partial(request):
        return page(request, "error_notice.html", {"problem": problem}, status=problem.status, headers=headers)
    return page(request, "error.html", {"problem": problem}, status=problem.status, headers=headers)


class _Headers:
    """ASGI middleware that sets `_HEADERS` on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
