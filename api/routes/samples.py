"""Samples: a model and texts to begin with, which a worker fetches."""

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.dependencies import CreateOnce, DatabaseSession, Member, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from core.service.samples.requests import get_request, request_samples
from secateur_wire.errors import Forbidden, IdempotencyConflict, InvalidRequest, NotFound, Unauthenticated
from secateur_wire.samples import SampleBody, SampleRequest

router = Router(prefix="/v1/samples", tags=["models"])


@router.post(
    "",
    status_code=202,
    response_model=SampleRequest,
    responses=problems(Unauthenticated, Forbidden, InvalidRequest, IdempotencyConflict),
)
def ask_for_samples(body: SampleBody, caller: Member, once: CreateOnce) -> Response:
    """Have a worker fetch SmolLM2-135M and Wikipedia articles and register them for the team, under the names
    `smollm2-135m`, `wikipedia-calibration` and `wikipedia-articles`; with a goal, a job that prunes the model follows.

    A team has one request at a time: while one is not over, it is the answer.
    """

    def create(session: Session) -> tuple[int, BaseModel]:
        return 202, request_samples(session, caller, body)[0]

    return once.answer(caller, body, create)


@router.get("/{request_id}", responses=problems(Unauthenticated, NotFound))
def read_request(
    request_id: Annotated[str, Path(max_length=100)], caller: Viewer, session: DatabaseSession
) -> SampleRequest:
    """A request for the samples: how far it is, the job it led to, or why they could not be had."""
    return get_request(session, caller.team_id, request_id)
