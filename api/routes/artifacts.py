"""The files of a job's artifact."""

from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from api.dependencies import DatabaseSession, Member, State, Viewer
from api.problems import problem_response, problems
from api.ranges import DOWNLOAD_ANSWERS, is_listed, wanted_range
from core.artifacts.store import artifact_prefix, attachment
from core.database import transaction
from core.errors import Conflict, Forbidden, NotFound, RangeNotSatisfiable, StoreUnavailable, Unauthenticated
from core.jobs import service
from core.jobs.schemas import ArtifactList
from core.registry import deletion

router = APIRouter(prefix="/v1/jobs", tags=["artifacts"])


@router.get("/{job_id}/artifacts", responses=problems(Unauthenticated, NotFound))
def list_artifacts(job_id: str, caller: Viewer, session: DatabaseSession) -> ArtifactList:
    """Every file with its size and SHA-256; none before the job is over."""
    return service.list_artifacts(session, caller.team_id, job_id)


@router.delete(
    "/{job_id}/artifacts",
    status_code=204,
    response_model=None,
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict),
)
def delete_artifacts(job_id: str, caller: Member, state: State) -> None:
    """Remove what a job left, to free space; its report stays. Not while it runs, or another job prunes it further."""
    with transaction(state.sessions) as session:
        prefixes = deletion.delete_artifacts(session, caller, job_id)
    deletion.forget(state.store, prefixes)


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
    request: Request,
    job_id: str,
    path: str,
    caller: Viewer,
    state: State,
    range_header: Annotated[str | None, Header(alias="Range", description="One range: bytes=first-last.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """Download a file, or a range of it; follow redirects to the store. The ETag is the SHA-256."""
    with transaction(state.sessions) as session:
        attempt, file = service.find_artifact(session, caller.team_id, job_id, path)
    prefix, name = artifact_prefix(job_id, attempt), path.rsplit("/", 1)[-1]
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": attachment(name),
    }
    if if_none_match is not None and is_listed(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    # The store has other entity tags, so it cannot answer If-Range; and what it signs for GET is not valid for HEAD.
    if request.method == "GET" and if_range is None:
        url = state.store.presigned(prefix, path, name)
        if url is not None:
            return RedirectResponse(url, 307, {"ETag": etag, "Cache-Control": "private, no-store"})
    start, end, status = 0, file.bytes, 200
    if range_header is not None and (if_range is None or if_range == etag):
        try:
            wanted = wanted_range(range_header, file.bytes)
        except RangeNotSatisfiable as error:
            response = problem_response(error, f"/v1/jobs/{job_id}/artifacts/{path}")
            response.headers["Content-Range"] = f"bytes */{file.bytes}"
            return response
        if wanted is not None:
            start, end = wanted
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.bytes}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(None, status, headers, media_type="application/octet-stream")
    content = state.store.open_range(prefix, path, start, end)
    return StreamingResponse(content, status, headers, media_type="application/octet-stream")
