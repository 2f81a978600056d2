"""The files of a job's artifact."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header
from starlette.responses import Response, StreamingResponse

from api.dependencies import DatabaseSession, State, Viewer
from api.problems import problem_response, problems
from api.ranges import is_listed, wanted_range
from core.artifacts.store import artifact_prefix
from core.errors import NotFound, RangeNotSatisfiable, Unauthenticated
from core.jobs import service
from core.jobs.schemas import ArtifactList

router = APIRouter(prefix="/v1/jobs", tags=["artifacts"])


@router.get("/{job_id}/artifacts", responses=problems(Unauthenticated, NotFound))
def list_artifacts(job_id: str, caller: Viewer, session: DatabaseSession) -> ArtifactList:
    """Every file with its size and SHA-256; none before the job is over."""
    return service.list_artifacts(session, caller.team_id, job_id)


@router.head("/{job_id}/artifacts/{path:path}", include_in_schema=False)
@router.get(
    "/{job_id}/artifacts/{path:path}",
    response_class=StreamingResponse,
    responses=problems(
        Unauthenticated,
        NotFound,
        RangeNotSatisfiable,
        besides={
            200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
            206: {"description": "The range asked for"},
            304: {"description": "Not modified"},
        },
    ),
)
def download(
    job_id: str,
    path: str,
    caller: Viewer,
    session: DatabaseSession,
    state: State,
    range_header: Annotated[str | None, Header(alias="Range", description="One range: bytes=first-last.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """Download a file, or a range of it. The ETag is its SHA-256."""
    attempt, file = service.find_artifact(session, caller.team_id, job_id, path)
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.rsplit('/', 1)[-1])}",
    }
    if if_none_match is not None and is_listed(etag, if_none_match):
        return Response(status_code=304, headers=headers)
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
    content = state.store.open_range(artifact_prefix(job_id, attempt), path, start, end)
    return StreamingResponse(content, status, headers, media_type="application/octet-stream")
