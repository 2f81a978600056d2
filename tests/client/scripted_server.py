"""A small HTTP server on loopback that answers in the shapes of the API, and breaks connections where it is told to."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from tests.serving import served

KEY = "sct_scripted"
JOB_ID = "job_01JD0000000000000000000000"
MOMENT = "2025-01-02T03:04:05Z"


class ConnectionCut(Exception):
    """Raised in the middle of a body: the server closes the connection there."""


class Answered(Exception):
    """Raised where the script has an answer of its own."""

    def __init__(self, response: Response) -> None:
        self.response = response


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Script:
    """What the server has and how it misbehaves. Lists of cuts are used up from the front, one entry a connection."""

    job: dict[str, Any] = field(default_factory=lambda: job())
    jobs: list[dict[str, Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    page_size: int = 100
    answers: dict[str, Response] = field(default_factory=dict)
    """Instead of the usual answer, by `METHOD path`."""
    passing: dict[str, list[Response]] = field(default_factory=dict)
    """The same for the first calls only: used up from the front."""
    events: list[dict[str, Any]] = field(default_factory=list)
    event_cuts: list[int | None] = field(default_factory=list)
    """Bytes of the event stream that go out before the connection breaks; None: it closes in good order."""
    closes_after: list[int] = field(default_factory=list)
    """Events after which the stream closes in good order, though more are there."""
    replays: int = 0
    """Events sent again on every connection."""
    event_pause: float = 0
    """Seconds between events."""
    slow_seconds: float = 0
    """Before a job is shown."""
    stays_open: bool = False
    """The stream goes on behind its last event until the server stops."""
    files: dict[str, bytes] = field(default_factory=dict)
    file_cuts: list[int | None] = field(default_factory=list)
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the artifact's list says of a file, where that is not the truth."""
    ignores_range: bool = False
    sends_etag: bool = True
    redirects_files_to: str | None = None
    report: dict[str, Any] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    stopping: bool = False

    def requests(self, method: str, path: str) -> list[Seen]:
        return [each for each in self.seen if (each.method, each.path) == (method, path)]


def job(**changes: Any) -> dict[str, Any]:
    return {
        "id": JOB_ID,
        "object": "job",
        "status": "succeeded",
        "stage": "store",
        "progress": 1.0,
        "attempt": 1,
        "created_at": MOMENT,
        "started_at": MOMENT,
        "finished_at": MOMENT,
        "error": None,
        "metrics": {
            "perplexity": {"articles": {"dense": 25.0, "pruned": 56.2, "ratio": 2.248, "sequence_length": 512}},
            "sparsity": {"prunable": 0.5, "model": 0.39},
            "parameters": {"dense": 134515008, "nonzero": 81430848},
            "bytes": {"dense": 269060552, "artifact": 269060552},
            "latency": None,
            "seconds": {"prune": 63.0, "total": 80.0},
            "peak_memory_bytes": 1_000_000_000,
        },
        "model": "smollm2-135m",
        "model_revision": "sha256:00",
        "method": "wanda",
        "sparsity": 0.5,
        "pattern": "unstructured",
        "parameters": {},
        "calibration": None,
        "evaluation": {"datasets": ["articles"]},
        "gates": {},
        "queue": "default",
        "priority": 0,
        "metadata": {"commit": "abc"},
        **changes,
    }


def model(name: str) -> dict[str, Any]:
    return {
        "id": f"model_{name}",
        "object": "model",
        "name": name,
        "source": "local",
        "revision": "sha256:00",
        "family": "llama",
        "architecture": "LlamaForCausalLM",
        "parameters": 134515008,
        "prunable_parameters": 106168320,
        "bytes": 269060552,
        "dtype": "bfloat16",
        "created_at": MOMENT,
    }


def event(sequence: int, kind: str, attempt: int = 1, **data: Any) -> dict[str, Any]:
    return {"sequence": sequence, "type": kind, "created_at": MOMENT, "attempt": attempt, "data": data}


def life(*ends: str) -> list[dict[str, Any]]:
    """The events of a job with one attempt for each of `ends`."""
    told: list[tuple[int, str, dict[str, Any]]] = []
    for attempt, end in enumerate(ends, start=1):
        told.append((attempt - 1, "status", {"status": "queued"}))
        told.append((attempt, "status", {"status": "running"}))
        told.append((attempt, "stage", {"stage": "prune"}))
        told += [(attempt, "progress", {"progress": n / 4, "block": n, "blocks": 4}) for n in range(1, 5)]
        told.append((attempt, "log", {"level": "warning", "message": "a remark [1, 2]"}))
        told.append((attempt, "status", {"status": end}))
    return [event(number, kind, attempt, **data) for number, (attempt, kind, data) in enumerate(told, start=1)]


def problem(
    status: int, code: str, detail: str, param: str | None = None, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    document = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code, "param": param}
    return JSONResponse(document | more, status, headers, media_type="application/problem+json")


def sse(each: dict[str, Any]) -> bytes:
    return f"id: {each['sequence']}\nevent: {each['type']}\ndata: {json.dumps(each)}\n\n".encode()


def _app(script: Script) -> FastAPI:
    async def note(request: Request) -> None:
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
    def models(after: int = 0) -> dict[str, Any]:
        return _page(script.models, after, script.page_size)

    @app.post("/v1/models", status_code=201)
    def add_model(body: dict[str, Any]) -> dict[str, Any]:
        return model(body["name"])

    @app.get("/v1/jobs")
    def jobs(after: int = 0) -> dict[str, Any]:
        return _page(script.jobs, after, script.page_size)

    @app.post("/v1/jobs", status_code=201)
    def submit(body: dict[str, Any]) -> dict[str, Any]:
        return job(status="queued", stage=None, progress=0.0, attempt=0, metrics=None, finished_at=None)

    @app.get("/v1/jobs/{job_id}")
    def get_job(job_id: str) -> Response:
        deadline = time.monotonic() + script.slow_seconds
        while not script.stopping and time.monotonic() < deadline:
            time.sleep(0.01)
        if job_id != JOB_ID:
            return problem(404, "not_found", f"there is no job '{job_id}'")
        return JSONResponse(script.job)

    @app.post("/v1/jobs/{job_id}/cancel")
    def cancel(job_id: str) -> dict[str, Any]:
        return job(status="cancelling", finished_at=None)

    @app.get("/v1/jobs/{job_id}/report")
    def report(job_id: str) -> dict[str, Any]:
        return script.report

    @app.get("/v1/jobs/{job_id}/events")
    def events(request: Request, job_id: str) -> Response:
        after = int(request.headers.get("Last-Event-ID", 0)) - script.replays
        due = [each for each in script.events if each["sequence"] > after]
        due = due[: script.closes_after.pop(0)] if script.closes_after else due
        body = b"retry: 5\n\n: a comment\n\n" + b"".join(sse(each) for each in due)
        cut = script.event_cuts.pop(0) if script.event_cuts else None
        return StreamingResponse(_stream(script, body, cut), media_type="text/event-stream")

    @app.get("/v1/jobs/{job_id}/artifacts")
    def artifacts(job_id: str) -> dict[str, Any]:
        listed = [
            {"path": path, "bytes": len(content), "sha256": _sha256(content), **script.listed.get(path, {})}
            for path, content in script.files.items()
        ]
        return {"data": listed, "has_more": False, "next_after": None}

    @app.get("/bucket/{path:path}")
    @app.get("/v1/jobs/{job_id}/artifacts/{path:path}")
    def file(request: Request, path: str) -> Response:
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
    if script.event_pause:
        for each in body.split(b"\n\n")[:-1]:
            yield each + b"\n\n"
            time.sleep(script.event_pause)
    else:
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
    with served(_app(script), port, log_level="critical", grace_seconds=2) as url:
        try:
            yield url
        finally:
            script.stopping = True
