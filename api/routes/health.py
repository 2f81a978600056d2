"""Liveness and readiness of the service."""

from typing import Literal

from pydantic import BaseModel
from starlette.responses import Response

from api.dependencies import State
from api.http.problem_documents import problem_response, problems
from api.http.routing import Router
from api.process import readiness
from secateur_wire.base import JsonObject
from secateur_wire.errors import Unavailable

router = Router(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"]


class Readiness(BaseModel):
    """`can_accept`: jobs can be submitted, and what is stored can be read. `can_run`: besides, a worker is up. `checks`
    has one entry for each thing there is to a whole service: database, store, broker, workers, devices; while the
    broker is away jobs start a few seconds late, and devices are false where a worker drains because its own failed.
    """

    status: Literal["ready"]
    can_accept: Literal[True]
    can_run: bool
    checks: dict[str, bool]


@router.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", response_model=Readiness, responses=problems(Unavailable))
async def readyz(state: State) -> Response | Readiness:
    """Return whether jobs can be taken, with 503 where database or store cannot be reached or the store is another
    installation's, and in `can_run` whether there is a worker to run them. The answer may be two seconds old. Database
    or store that give none within three seconds count as away.
    """
    checked = await state.readiness.check()
    checks = dict(checked.checks)
    silent = f" (no answer within {readiness.ANSWER_SECONDS:g} s)"
    missing = [
        name + (silent if name in checked.unanswered else "") for name in ("database", "store") if not checks[name]
    ]
    if missing:
        reason = state.store.refused or ", ".join(missing)
        members: JsonObject = {"can_accept": False, "can_run": False, "checks": {**checks}}
        return problem_response(Unavailable(f"not ready: {reason}", members=members), "/readyz")
    return Readiness(status="ready", can_accept=True, can_run=checks["workers"], checks=checks)
