"""Routes for the liveness and readiness of the service."""

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
    """Readiness of the service.

    `can_accept`: jobs can be submitted, and stored objects can be read. `can_run`: additionally, a worker is running.
    `checks` has one entry for each part of the service: database, store, broker, workers, devices. While the broker is
    unavailable, jobs start a few seconds late. `devices` is false where a worker drains because its own device failed.
    """

    status: Literal["ready"]
    can_accept: Literal[True]
    can_run: bool
    checks: dict[str, bool]


@router.get("/healthz")
def healthz() -> Health:
    """Return that the process answers."""
    return Health(status="ok")


@router.get("/readyz", response_model=Readiness, responses=problems(Unavailable))
async def readyz(state: State) -> Response | Readiness:
    """Return whether jobs can be accepted, and in `can_run` whether a worker can run them.

    The status is 503 where database or store cannot be reached, or the store belongs to another installation. The
    answer may be two seconds old. A database or store without an answer within three seconds counts as unavailable.
    """
    checked = await state.readiness.check()
    checks = dict(checked.checks)
    note = f" (no answer within {readiness.ANSWER_SECONDS:g} s)"
    missing = [
        name + (note if name in checked.unanswered else "") for name in ("database", "store") if not checks[name]
    ]
    if missing:
        # Anybody may ask: the ids of both installations are in the log alone.
        reason = "the store belongs to another installation" if state.store.refused else ", ".join(missing)
        members: JsonObject = {"can_accept": False, "can_run": False, "checks": {**checks}}
        return problem_response(Unavailable(f"not ready: {reason}", members=members), "/readyz")
    return Readiness(status="ready", can_accept=True, can_run=checks["workers"], checks=checks)
