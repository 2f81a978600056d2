"""Routes of publications: artifacts pushed to the hub or to a bucket."""

from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.dependencies import After, CreateOnce, DatabaseSession, Limit, Member, State, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from core.service.publications import service
from core.service.publications.schemas import PublicationBody, RequestIdentity
from secateur_wire.base import Page
from secateur_wire.errors import (
    Conflict,
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    NoArtifact,
    NotFound,
    Unauthenticated,
)
from secateur_wire.publications import Publication

router = Router(tags=["publications"])


@router.post(
    "/v1/jobs/{job_id}/publish",
    status_code=201,
    response_model=Publication,
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict, IdempotencyConflict, NoArtifact, InvalidRequest),
)
def publish_job(job_id: str, body: PublicationBody, caller: Member, state: State, once: CreateOnce) -> Response:
    """Push a job's artifact and its card to a repository of the hub or a bucket, with the given credentials.

    The publication continues after the answer: poll it for its progress.
    """

    def create(session: Session) -> tuple[int, BaseModel]:
        publication = service.publish(session, caller, job_id, body, settings=state.settings, secret=state.secret)
        return 201, publication

    return once.answer(caller, RequestIdentity.of(body, state.secret), create)


@router.get("/v1/jobs/{job_id}/publications", responses=problems(Unauthenticated, NotFound, InvalidRequest))
def list_publications(
    job_id: str, caller: Viewer, session: DatabaseSession, limit: Limit = 50, after: After = None
) -> Page[Publication]:
    """List the publications of a job's artifact, newest first."""
    return service.list_publications(session, caller.team_id, job_id, limit=limit, after=after)


@router.get("/v1/publications/{publication_id}", responses=problems(Unauthenticated, NotFound))
def get_publication(publication_id: str, caller: Viewer, session: DatabaseSession) -> Publication:
    """Return a publication: its progress, the place of the artifact, or the error."""
    return service.get_publication(session, caller.team_id, publication_id)


@router.post(
    "/v1/publications/{publication_id}/cancel", responses=problems(Unauthenticated, Forbidden, NotFound, Conflict)
)
def cancel_publication(publication_id: str, caller: Member, session: DatabaseSession) -> Publication:
    """Cancel a publication and erase its credentials; files that have arrived stay there. Idempotent."""
    return service.cancel_publication(session, caller, publication_id)
