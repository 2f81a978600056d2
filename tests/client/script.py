"""Script of the scripted server: its answers, in the shapes of the API, and the requests it has seen."""

import json
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, Response

KEY = "sct_scripted"
JOB_ID = "job_01JD0000000000000000000000"
MOMENT = "2025-01-02T03:04:05Z"


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
    """State of the server, and its misbehaviour. Lists of cuts are used up from the front, one entry a connection."""

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
    stays_open: bool = False
    """The stream goes on behind its last event until the server stops."""
    files: dict[str, bytes] = field(default_factory=dict)
    file_cuts: list[int | None] = field(default_factory=list)
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Entries of the artifact's list of files that are not the truth."""
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
