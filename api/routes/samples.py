"""Routes of the samples: a first model with texts, which a worker fetches."""

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
    """Request the samples: a worker fetches SmolLM2-135M and Wikipedia articles and registers them for the team.

    Their names are `smollm2-135m`, `wikipedia-calibration` and `wikipedia-articles`. With a goal, a job that prunes the
    model follows.

    A team has at most one unfinished request: while there is one, it is returned.
    """

    def create(session: Session) -> tuple[int, BaseModel]:
        return 202, request_samples(session, caller, body)[0]

    return once.answer(caller, body, create)


@router.get("/{request_id}", responses=problems(Unauthenticated, NotFound))
def read_request(
    request_id: Annotated[str, Path(max_length=100)], caller: Viewer, session: DatabaseSession
) -> SampleRequest:
    """Return a request for the samples: its progress, the resulting job, or the error."""
    return get_request(session, caller.team_id, request_id)
