"""Whether the service lives, and whether it can do its work."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from api.dependencies import State
from api.problems import problem_response, problems
from core.database import transaction
from core.errors import Unavailable
from core.jobs.broker import broker_answers
from core.jobs.queue import fresh_workers

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"]


class Readiness(BaseModel):
    """`checks` has one entry for each thing the service needs: database, broker, store, workers."""

    status: Literal["ready"]
    checks: dict[str, bool]


@router.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", response_model=Readiness, responses=problems(Unavailable))
def readyz(state: State) -> Response | Readiness:
    """Database, broker and store can be reached and a worker gave a sign of life; else 503 with the same `checks`."""
    database, workers = False, False
    try:
        with transaction(state.sessions) as session:
            session.execute(text("SELECT 1"))
            database = True
            workers = fresh_workers(session, state.settings.worker_fresh_seconds) > 0
    except SQLAlchemyError:
        pass  # what is not there stays False
    checks = {
        "database": database,
        "broker": broker_answers(state.broker),
        "store": state.store.is_usable(),
        "workers": workers,
    }
    missing = ", ".join(name for name, answers in checks.items() if not answers)
    if missing:
        return problem_response(Unavailable(f"not ready: {missing}"), "/readyz", checks=checks)
    return Readiness(status="ready", checks=checks)
