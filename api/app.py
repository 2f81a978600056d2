"""Application of the API; `api.start` starts it as a process."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from wsgiref.simple_server import WSGIServer

import structlog
from fastapi import FastAPI
from prometheus_client import start_http_server
from starlette.responses import RedirectResponse, Response

from api.http.body_limits import BodyLimits
from api.http.problem_documents import add_handlers
from api.http.request_log import Requests
from api.openapi.document import describe, operation_id
from api.portal.app import create_portal
from api.process.open_streams import take_descriptors
from api.process.proxies import behind_proxies
from api.routes import (
    artifacts,
    datasets,
    discoveries,
    fleet,
    health,
    identifiers,
    jobs,
    keys,
    methods,
    metrics,
    models,
    plans,
    publications,
    samples,
    signing_keys,
    sweeps,
    team,
    triggers,
    uploads,
    webhooks,
    workloads,
)
from api.state import ApiState, build_state
from core import telemetry
from core.database import database_url
from core.logs import configure_logs
from core.settings import Settings, get_settings

log = structlog.get_logger()

_DESCRIPTION = "Submit a model, a method and a sparsity; get a smaller checkpoint and a report of what the cut cost."


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application on a migrated database. Raises ValueError where no database is configured."""
    chosen = settings or get_settings()
    database_url(chosen)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        current: Settings = app.state.settings
        configure_logs(current)
        telemetry.configure(current, "api")
        if current.hub_token is not None and not current.hub_token_teams:
            log.warning("SECATEUR_HUB_TOKEN is lent to no team: name teams in SECATEUR_HUB_TOKEN_TEAMS")
        take_descriptors()
        state = build_state(current)
        app.state.api = portal.state.api = state
        server = _serve_metrics(current, state)
        try:
            async with state.listener.running(), state.refused_keys.running():
                yield
        finally:
            if server is not None:
                server.shutdown()
                server.server_close()
            state.broker.close()
            state.sessions.kw["bind"].dispose()
            telemetry.shutdown()

    app = FastAPI(
        title="Secateur",
        version=version("secateur-server"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
    )
    app.state.settings = chosen
    app.add_middleware(BodyLimits, settings=chosen)
    # These two wrap the handler of unexpected errors too, which a middleware cannot do.
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: behind_proxies(Requests(build()), chosen)  # type: ignore[method-assign]
    portal = create_portal()
    add_handlers(app)
    describe(app)
    for each in (
        health,
        methods,
        models,
        plans,
        discoveries,
        datasets,
        jobs,
        artifacts,
        publications,
        sweeps,
        keys,
        workloads,
        team,
        fleet,
        identifiers,
        uploads,
        samples,
        webhooks,
        triggers,
        signing_keys,
    ):
        app.include_router(each.router)
    if chosen.metrics_port is None:
        app.include_router(metrics.router)
    app.mount("/portal", portal)
    for path, place in {
        "/": "/portal/",
        "/portal": "/portal/",
        "/docs": "/portal/help",
        "/redoc": "/portal/help",
    }.items():
        app.add_api_route(path, _redirect_to(place), methods=["GET", "HEAD"], include_in_schema=False)
    return app


def _redirect_to(place: str) -> Callable[[], Response]:
    def answer() -> Response:
        return RedirectResponse(place, 303)

    return answer


def _serve_metrics(settings: Settings, state: ApiState) -> WSGIServer | None:
    """Serve the metrics on a separate port, which need not be reachable from the same networks as the API."""
    if not settings.metrics_port:
        return None
    server, _ = start_http_server(settings.metrics_port, registry=state.metrics)
    return server
