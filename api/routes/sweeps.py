"""Routes of sweeps: many jobs on one model, over a grid or as a search."""

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.dependencies import After, CreateOnce, DatabaseSession, Limit, Member, Quality, State, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from core.service.jobs.resolution.hub_lookup import HUB_ERRORS
from core.service.sweeps import service
from core.service.sweeps.schemas import Sweep, SweepBody, SweepResults
from secateur_wire.base import Page
from secateur_wire.errors import (
    Conflict,
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    UnknownMethod,
)
from secateur_wire.states import SweepStatus
from secateur_wire.sweeps import Cost

router = Router(prefix="/v1/sweeps", tags=["sweeps"])


@router.post(
    "",
    status_code=201,
    response_model=Sweep,
    responses=problems(Unauthenticated, Forbidden, IdempotencyConflict, InvalidRequest, UnknownMethod, *HUB_ERRORS),
)
def submit_sweep(body: SweepBody, caller: Member, state: State, once: CreateOnce) -> Response:
    """Start a sweep.

    Every point is checked like a job first; an error names the points that cannot run.
    """
    findings = service.look_up(state.hub, caller.team_id, body)

    def create(session: Session) -> tuple[int, BaseModel]:
        return 201, service.create(state.request(session, caller, findings), body)

    return once.answer(caller, body, create)


@router.get("", responses=problems(Unauthenticated, InvalidRequest))
def list_sweeps(
    caller: Viewer,
    session: DatabaseSession,
    limit: Limit = 50,
    after: After = None,
    status: Annotated[SweepStatus | None, Query(description="Only sweeps in this state.")] = None,
) -> Page[Sweep]:
    """List the team's sweeps, newest first."""
    return service.list_sweeps(session, caller.team_id, limit=limit, after=after, status=status)


@router.get("/{sweep_id}", responses=problems(Unauthenticated, NotFound))
def get_sweep(sweep_id: str, caller: Viewer, session: DatabaseSession) -> Sweep:
    """Return one sweep: its state and its request."""
    return service.get_sweep(session, caller.team_id, sweep_id)


@router.get("/{sweep_id}/results", responses=problems(Unauthenticated, NotFound, InvalidRequest))
def get_sweep_results(
    sweep_id: str, caller: Viewer, session: DatabaseSession, quality: Quality = None, cost: Cost | None = None
) -> SweepResults:
    """Return the results of a sweep so far.

    They are every point with its job and figures, quality against cost with the Pareto front, the best point by each
    objective, and the result of a search.
    """
    return service.get_results(session, caller.team_id, sweep_id, quality=quality, cost=cost)


@router.post("/{sweep_id}/cancel", responses=problems(Unauthenticated, Forbidden, NotFound, Conflict))
def cancel_sweep(sweep_id: str, caller: Member, session: DatabaseSession) -> Sweep:
    """Start no more jobs of a sweep, and cancel its unfinished jobs. Idempotent."""
    return service.cancel(session, caller, sweep_id)


@router.post("/{sweep_id}/resume", responses=problems(Unauthenticated, Forbidden, NotFound, Conflict))
def resume_sweep(sweep_id: str, caller: Member, session: DatabaseSession) -> Sweep:
    """Resume a cancelled or failed sweep. Idempotent.

    Cancelled and failed jobs are retried, except after a missed gate.
    """
    return service.resume(session, caller, sweep_id)
