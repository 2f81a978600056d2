"""Downloads of a file of a job's artifact: whole, in ranges, or by a redirect to the store."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from api.http.problem_documents import problem_response
from api.http.ranges import is_listed, wanted_range
from api.state import ApiState
from core.database import transaction
from core.service.jobs import service
from core.service.retention.reads import note_read
from core.storage import artifact_prefix, attachment
from secateur_wire.errors import RangeNotSatisfiable


@dataclass(frozen=True)
class _Conditions:
    range: str | None
    if_none_match: str | None
    if_range: str | None


def _conditions(
    range_header: Annotated[str | None, Header(alias="Range", description="One range: bytes=first-last.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> _Conditions:
    return _Conditions(range_header, if_none_match, if_range)


Conditions = Annotated[_Conditions, Depends(_conditions)]
"""Requested part of the file, and the conditions of the request: headers of RFC 9110."""


def artifact_file(
    request: Request, state: ApiState, team_id: str, job_id: str, path: str, conditions: _Conditions
) -> Response:
    """Answer GET or HEAD for one file; its ETag is the SHA-256. Raises NotFound, StoreUnavailable."""
    with transaction(state.sessions) as session:
        attempt, file = service.find_artifact(session, team_id, job_id, path)
        note_read(session, job_id)
    prefix, name = artifact_prefix(job_id, attempt), path.rsplit("/", 1)[-1]
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": attachment(name),
    }
    if conditions.if_none_match is not None and is_listed(etag, conditions.if_none_match):
        return Response(status_code=304, headers=headers)
    # The store has other entity tags, so it cannot answer If-Range. A signature for GET is not valid for HEAD.
    if request.method == "GET" and conditions.if_range is None:
        url = state.store.presigned(prefix, path, name)
        if url is not None:
            return RedirectResponse(url, 307, {"ETag": etag, "Cache-Control": "private, no-store"})
    start, end, status = 0, file.bytes, 200
    if conditions.range is not None and (conditions.if_range is None or conditions.if_range == etag):
        try:
            wanted = wanted_range(conditions.range, file.bytes)
        except RangeNotSatisfiable as error:
            response = problem_response(error, request.url.path)
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
