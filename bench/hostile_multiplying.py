"""Requests that cost the server far more than their senders: each attack, and the number of answers of each status."""

import asyncio
import base64
import hashlib
import json
import resource
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from bench.hostile_attacks import Figures, Target, dripping
from core.engine.checkpoints.files import CONFIG_FILE, INDEX_FILE, SINGLE_FILE

MODEL, TEXT = "tiny", "numbers.txt"


@dataclass
class Caller:
    """A client with a key, and the counted statuses and the longest answer of its requests."""

    target: Target
    statuses: Counter[str] = field(default_factory=Counter)
    longest: int = 0

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.target.key}"} if self.target.key else {}
        base = f"http://{self.target.host}:{self.target.port}"
        self._client = httpx.Client(base_url=base, headers=headers, timeout=180)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of a good answer, None for any other."""
        name = f"{method} {path.partition('?')[0].split('/')[2]}"
        try:
            answer = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            self.statuses[f"{name} {type(error).__name__}"] += 1
            return None
        self.statuses[f"{name} {answer.status_code}"] += 1
        self.longest = max(self.longest, len(answer.content))
        return answer.json() if answer.is_success else None

    def ask_often(self, times: int, clients: int, method: str, path: str, **options: Any) -> Figures:
        """Make a request several times, so many at once; return the figures of all requests so far."""
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda _: self.ask(method, path, **options), range(times)))
        counted = {name: str(count) for name, count in sorted(self.statuses.items())}
        return counted | {"longest answer": f"{self.longest / 2**20:.1f} MiB"}


def many_tensors(target: Target, folder: Path, *, files: int, tensors: int) -> Figures:
    """Upload a model with so many empty tensors in each of its files, and list the models."""
    caller, weights = Caller(target), (folder / SINGLE_FILE).read_bytes()
    contents = {CONFIG_FILE: (folder / CONFIG_FILE).read_bytes()}
    begins = 8 + int.from_bytes(weights[:8], "little")
    own, data = weights[8:begins].strip()[1:-1] + b",", weights[begins:]
    names = [SINGLE_FILE] if files == 1 else [f"model-{number}.safetensors" for number in range(files)]
    for name in names:
        entry = f'"{name[6]}%05x":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
        header = b"{" + own + ",".join(entry % number for number in range(tensors)).encode() + b"}"
        contents[name] = len(header).to_bytes(8, "little") + header + data
        own = data = b""
    if files > 1:
        contents[INDEX_FILE] = json.dumps({"weight_map": {f"{name[6]}00000": name for name in names}}).encode()
    announced = [
        {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in contents.items()
    ]
    upload = caller.ask("POST", "/v1/uploads", json={"kind": "model", "name": f"of-{files}", "files": announced})
    if upload is not None:
        for path, content in contents.items():
            for start in range(0, len(content), upload["part_bytes"]):
                part, place = content[start : start + upload["part_bytes"]], f"/v1/uploads/{upload['id']}/files/{path}"
                headers = {"Content-Type": "application/octet-stream"}
                caller.ask("PUT", place, params={"offset": start}, content=part, headers=headers)
        caller.ask("POST", f"/v1/uploads/{upload['id']}/complete")
    return caller.ask_often(4, 2, "GET", "/v1/models?limit=200")


def held_streams(target: Target, *, job: str, streams: int, seconds: float) -> Figures:
    """Open event streams of a job that goes on, and hold them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # of this process, not of the server
    head = target.head("GET", f"/v1/jobs/{job}/events", "Accept: text/event-stream", "Connection: close")
    return asyncio.run(dripping(target, clients=streams, start=head, drop=b"", pause=seconds, most=seconds))


def _long_job(size: int) -> dict[str, Any]:
    kept = [f"{number:03d}" + "x" * 9_997 for number in range(size // 10_000)]
    counted = {"dataset": TEXT, "samples": 8, "sequence_length": 32}
    vocabulary = {"tokens": "auto", "keep": kept}
    return {"model": MODEL, "method": "wanda", "calibration": counted, "vocabulary": vocabulary}


def long_sweep(target: Target, size: int, *, points: int) -> Figures:
    """Submit a sweep whose job has a text of this size, and read its results again and again."""
    caller = Caller(target)
    grid = {"sparsity": [round(0.1 + number / 1000, 3) for number in range(points)]}
    sweep = caller.ask("POST", "/v1/sweeps", json={"job": _long_job(size), "grid": grid})
    return caller.ask_often(6, 3, "GET", f"/v1/sweeps/{'of-none' if sweep is None else sweep['id']}/results")


def long_jobs(target: Target, size: int, *, jobs: int) -> Figures:
    """Submit jobs with a text of this size, and list them six times at once."""
    caller = Caller(target)
    caller.ask_often(jobs, 1, "POST", "/v1/jobs", json=_long_job(size) | {"sparsity": 0.5})
    return caller.ask_often(6, 6, "GET", "/v1/jobs?limit=200")


def deep_tokens(target: Target, *, tokens: int, levels: int) -> Figures:
    """Send identity tokens whose claims are lists in lists, without a key."""
    header, claims = (
        base64.urlsafe_b64encode(each).decode().rstrip("=") for each in (b'{"alg":"RS256"}', b"[" * levels)
    )
    caller = Caller(Target(target.host, target.port, ""))
    return caller.ask_often(tokens, 4, "POST", "/v1/workload-keys", json={"token": f"{header}.{claims}.e30"})


def multiplying(target: Target, job: str, folder: Path) -> dict[str, Callable[[], Figures]]:
    """Return the attacks by name, which another process can run; `folder` is of the model."""
    sizes = (880_000, 60_000)  # above the limit of a job's texts, and just below it
    return {
        "tokens 11,000 levels deep": partial(deep_tokens, target, tokens=50, levels=11_000),
        **{f"sweep of {size // 1000} KB × 500 points": partial(long_sweep, target, size, points=500) for size in sizes},
        **{f"180 jobs of {size // 1000} KB, six lists": partial(long_jobs, target, size, jobs=180) for size in sizes},
        "990 event streams": partial(held_streams, target, job=job, streams=990, seconds=10),
        "100,000 tensors in a file, models listed": partial(many_tensors, target, folder, files=1, tensors=100_000),
        "six headers of 280,000 tensors": partial(many_tensors, target, folder, files=6, tensors=280_000),
    }
