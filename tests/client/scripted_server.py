"""A small HTTP server on loopback that answers in the shapes of the API, and breaks connections where it is told to."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tests.client.script import JOB_ID, KEY, Script, Seen, job, model, problem, sse
from tests.serving import served


class ConnectionCut(Exception):
    """Raised in the middle of a body: the server closes the connection there."""


class Answered(Exception):
    """Raised where the script has an answer of its own."""

    def __init__(self, response: Response) -> None:
        self.response = response


async def _script(request: Request) -> Script:
    script: Script = request.scope["script"]
    return script


Scripted = Annotated[Script, Depends(_script)]


@cache
def _app() -> FastAPI:
    """The application of all scripts: each is in the scope of its own server's requests."""

    async def note(request: Request, script: Scripted) -> None:
        raw = await request.body()
        path = request.scope["path"]
        body = json.loads(raw) if raw else None
        script.seen.append(Seen(request.method, path, dict(request.query_params), dict(request.headers), body))
        if request.headers.get("Authorization") != f"Bearer {KEY}" and not path.startswith("/bucket/"):
            raise Answered(problem(401, "unauthenticated", "this API key is not known"))
        if passing := script.passing.get(f"{request.method} {path}"):
            raise Answered(passing.pop(0))
        if f"{request.method} {path}" in script.answers:
            raise Answered(script.answers[f"{request.method} {path}"])

    app = FastAPI(dependencies=[Depends(note)])

    @app.exception_handler(Answered)
    def answer(request: Request, answered: Answered) -> Response:
        return answered.response

    @app.get("/v1/models")
    def models(script: Scripted, after: int = 0) -> dict[str, Any]:
        return _page(script.models, after, script.page_size)

    @app.post("/v1/models", status_code=201)
    def add_model(body: dict[str, Any]) -> dict[str, Any]:
        return model(body["name"])

    @app.get("/v1/jobs")
    def jobs(script: Scripted, after: int = 0) -> dict[str, Any]:
        return _page(script.jobs, after, script.page_size)

    @app.post("/v1/jobs", status_code=201)
    def submit(body: dict[str, Any]) -> dict[str, Any]:
        return job(status="queued", stage=None, progress=0.0, attempt=0, metrics=None, finished_at=None)

    @app.get("/v1/jobs/{job_id}")
    def get_job(script: Scripted, job_id: str) -> Response:
        if job_id != JOB_ID:
            return problem(404, "not_found", f"there is no job '{job_id}'")
        return JSONResponse(script.job)

    @app.post("/v1/jobs/{job_id}/cancel")
    def cancel(job_id: str) -> dict[str, Any]:
        return job(status="cancelling", finished_at=None)

    @app.get("/v1/jobs/{job_id}/report")
    def report(script: Scripted, job_id: str) -> dict[str, Any]:
        return script.report

    @app.get("/v1/jobs/{job_id}/events")
    def events(request: Request, script: Scripted, job_id: str) -> Response:
        after = int(request.headers.get("Last-Event-ID", 0)) - script.replays
        due = [each for each in script.events if each["sequence"] > after]
        due = due[: script.closes_after.pop(0)] if script.closes_after else due
        body = b"retry: 5\n\n: a comment\n\n" + b"".join(sse(each) for each in due)
        cut = script.event_cuts.pop(0) if script.event_cuts else None
        return StreamingResponse(_stream(script, body, cut), media_type="text/event-stream")

    @app.get("/v1/jobs/{job_id}/artifacts")
    def artifacts(script: Scripted, job_id: str) -> dict[str, Any]:
        listed = [
            {"path": path, "bytes": len(content), "sha256": _sha256(content), **script.listed.get(path, {})}
            for path, content in script.files.items()
        ]
        return {"data": listed, "has_more": False, "next_after": None}

    @app.get("/bucket/{path:path}")
    @app.get("/v1/jobs/{job_id}/artifacts/{path:path}")
    def file(request: Request, script: Scripted, path: str) -> Response:
        if script.redirects_files_to and not request.url.path.startswith("/bucket/"):
            return RedirectResponse(f"{script.redirects_files_to}/bucket/{path}", 307)
        content = script.files[path]
        start = 0
        headers = {"ETag": f'"{_sha256(content)}"'} if script.sends_etag else {"ETag": '"bucket-etag-2"'}
        wanted = request.headers.get("Range")
        if wanted is not None and not script.ignores_range:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        headers["Content-Length"] = str(len(body))
        cut = script.file_cuts.pop(0) if script.file_cuts else None
        return StreamingResponse(_pieces(body, cut), 206 if "Content-Range" in headers else 200, headers)

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    def nothing(path: str) -> Response:
        return problem(404, "not_found", f"there is nothing at /{path}")

    return app


def _page(items: list[dict[str, Any]], after: int, size: int) -> dict[str, Any]:
    end = after + size
    more = end < len(items)
    return {"data": items[after:end], "has_more": more, "next_after": str(end) if more else None}


def _stream(script: Script, body: bytes, cut: int | None) -> Iterator[bytes]:
    yield from _pieces(body, cut)
    while script.stays_open and not script.stopping:
        time.sleep(0.02)
        yield b": alive\n\n"


def _pieces(body: bytes, cut: int | None) -> Iterator[bytes]:
    for start in range(0, len(body) if cut is None else cut, 1000):
        yield body[start : min(start + 1000, len(body) if cut is None else cut)]
    if cut is not None:
        raise ConnectionCut


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serving(script: Script, port: int = 0) -> Iterator[str]:
    """The URL at which `script` is served inside the `with`."""
    app = _app()

    async def scripted(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "script": script}, receive, send)

    with served(scripted, port, log_level="critical", grace_seconds=2) as url:
        try:
            yield url
        finally:
            script.stopping = True
