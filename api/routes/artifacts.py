"""Routes of the files of a job's artifact."""

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from api.dependencies import DatabaseSession, Member, State, Viewer
from api.http.archives import MEDIA_TYPE, artifact_archive
from api.http.downloads import Conditions, artifact_file
from api.http.problem_documents import problems
from api.http.ranges import DOWNLOAD_ANSWERS
from api.http.routing import Router
from core.database import transaction
from core.service.jobs import service
from core.service.retention import deletion
from core.storage.removal import remove_prefixes
from secateur_wire.errors import Conflict, Forbidden, NotFound, RangeNotSatisfiable, StoreUnavailable, Unauthenticated
from secateur_wire.jobs import ArtifactList

router = Router(prefix="/v1/jobs", tags=["artifacts"])


@router.get("/{job_id}/artifacts", responses=problems(Unauthenticated, NotFound))
def list_artifacts(job_id: str, caller: Viewer, session: DatabaseSession) -> ArtifactList:
    """List every file with its size and SHA-256; the list is empty before the job is over."""
    return service.list_artifacts(session, caller.team_id, job_id)


@router.head("/{job_id}/artifacts.tar", include_in_schema=False)
@router.get(
    "/{job_id}/artifacts.tar",
    response_class=StreamingResponse,
    responses=problems(
        Unauthenticated,
        NotFound,
        StoreUnavailable,
        besides={
            200: {
                "description": "A tar archive: the files of the artifact in a folder named after the job.",
                "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}, "example": "…"}},
                "headers": {"Content-Length": {"description": "Bytes of all of it.", "schema": {"type": "string"}}},
            }
        },
    ),
)
def download_archive(request: Request, job_id: str, caller: Viewer, state: State) -> Response:
    """Download a whole artifact as a tar archive.

    The archive is created while it is sent, so it has no ranges.
    """
    return artifact_archive(request, state, caller.team_id, job_id)


@router.delete(
    "/{job_id}/artifacts",
    status_code=204,
    response_model=None,
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict),
)
def delete_artifacts(job_id: str, caller: Member, state: State) -> None:
    """Delete the artifact of a job to free space; its report stays.

    This is refused while the job runs, and while another job prunes the artifact further.
    """
    with transaction(state.sessions) as session:
        prefixes = deletion.delete_artifacts(session, caller, job_id)
    remove_prefixes(state.store, prefixes)


@router.head("/{job_id}/artifacts/{path:path}", include_in_schema=False)
@router.get(
    "/{job_id}/artifacts/{path:path}",
    response_class=StreamingResponse,
    responses=problems(
        Unauthenticated,
        NotFound,
        RangeNotSatisfiable,
        StoreUnavailable,
        besides=DOWNLOAD_ANSWERS,
    ),
)
def download_artifact(
    request: Request, job_id: str, path: str, caller: Viewer, state: State, conditions: Conditions
) -> Response:
    """Download a file, or a range of it.

    Follow redirects to the store. The ETag is the SHA-256.
    """
    return artifact_file(request, state, caller.team_id, job_id, path, conditions)
