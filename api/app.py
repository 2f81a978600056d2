"""The application: `uvicorn --factory api.app:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api.bodies import BodyLimits
from api.problems import add_handlers, declare_problems
from api.routes import artifacts, datasets, events, health, jobs, keys, methods, models
from api.state import build_state
from core.database import database_url
from core.logs import configure_logs
from core.settings import Settings, get_settings

_DESCRIPTION = "Submit a model, a method and a sparsity; get a smaller checkpoint and a report of what the cut cost."


def create_app(settings: Settings | None = None) -> FastAPI:
    """An application on a migrated database. Raises ValueError where no database is configured."""
    chosen = settings or get_settings()
    database_url(chosen)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        configure_logs()
        state = build_state(chosen)
        app.state.api = state
        try:
            async with state.watch.running():
                yield
        finally:
            state.broker.close()
            state.sessions.kw["bind"].dispose()

    app = FastAPI(
        title="Secateur",
        version=version("secateur-server"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.add_middleware(BodyLimits, max_bytes=chosen.max_body_bytes)
    add_handlers(app)
    declare_problems(app)
    for each in (health, methods, models, datasets, jobs, events, artifacts, keys):
        app.include_router(each.router)
    return app
