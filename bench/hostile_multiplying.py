"""Requests that cost the server far more than their senders: each attack, and the number of answers of each status."""

import asyncio
import base64
import contextlib
import hashlib
import json
import resource
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.hostile_attacks import Figures, Target

MODEL, TEXT = "tiny", "numbers.txt"
_PATIENCE = 180
_CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64}).encode()


@dataclass
class Caller:
    """A client with a key, and the counted statuses and the longest answer of its requests."""

    target: Target
    statuses: Counter[str] = field(default_factory=Counter)
    longest: int = 0

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.target.key}"} if self.target.key else {}
        base = f"http://{self.target.host}:{self.target.port}"
        self._client = httpx.Client(base_url=base, headers=headers, timeout=_PATIENCE)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of a good answer, None for any other."""
        name = f"{method} {path.partition('?')[0].rpartition('/')[2]}"
        try:
            answer = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            self.statuses[f"{name} {type(error).__name__}"] += 1
            return None
        self.statuses[f"{name} {answer.status_code}"] += 1
        self.longest = max(self.longest, len(answer.content))
        return answer.json() if answer.is_success else None

    def ask_all(self, clients: int, requests: Iterable[tuple[str, str, dict[str, Any]]]) -> None:
        """Make requests, so many at a time."""
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda each: self.ask(each[0], each[1], **each[2]), requests))

    @property
    def figures(self) -> Figures:
        counted = {name: str(count) for name, count in sorted(self.statuses.items())}
        return counted | {"longest answer": f"{self.longest / 2**20:.1f} MiB"}


def many_tensors(target: Target, *, name: str, files: int, tensors: int) -> Figures:
    """Upload a model whose files hold nothing but names of empty tensors, and list the models."""
    caller = Caller(target)
    contents = {"config.json": _CONFIG}
    for number in range(files):
        entries = (
            f'"{chr(97 + number)}{each:06d}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
            for each in range(tensors)
        )
        header = f"{{{','.join(entries)}}}".encode()
        path = "model.safetensors" if files == 1 else f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        contents[path] = len(header).to_bytes(8, "little") + header
    announced = [
        {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in contents.items()
    ]
    upload = caller.ask("POST", "/v1/uploads", json={"kind": "model", "name": name, "files": announced})
    if upload is not None:
        for path, content in contents.items():
            for start in range(0, len(content), upload["part_bytes"]):
                part, place = content[start : start + upload["part_bytes"]], f"/v1/uploads/{upload['id']}/files/{path}"
                headers = {"Content-Type": "application/octet-stream"}
                caller.ask("PUT", place, params={"offset": start}, content=part, headers=headers)
        caller.ask("POST", f"/v1/uploads/{upload['id']}/complete")
    caller.ask_all(2, [("GET", "/v1/models?limit=200", {})] * 4)
    return caller.figures


async def held_streams(target: Target, *, job: str, streams: int, seconds: float) -> Figures:
    """Open event streams of a job that goes on, and hold them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # of this process: the server was started before
    outcomes: Counter[str] = Counter()

    async def hold() -> None:
        status = "not answered"
        with contextlib.suppress(OSError, TimeoutError):
            async with target.connection() as (reader, writer):
                writer.write(target.head("GET", f"/v1/jobs/{job}/events", "Accept: text/event-stream"))
                async with asyncio.timeout(seconds):
                    line = await reader.readline()
                    status = line.split()[1].decode() if line.startswith(b"HTTP/") else "closed"
                    while await reader.read(65536):
                        pass
        outcomes[f"GET events {status}"] += 1

    await asyncio.gather(*(hold() for _ in range(streams)))
    return {name: str(count) for name, count in sorted(outcomes.items())}


def _long_job(size: int) -> dict[str, Any]:
    kept = [f"{number:03d}" + "x" * 9_997 for number in range(size // 10_000)]
    counted = {"dataset": TEXT, "samples": 8, "sequence_length": 32}
    vocabulary = {"tokens": "auto", "keep": kept}
    return {"model": MODEL, "method": "wanda", "calibration": counted, "vocabulary": vocabulary}


def long_sweep(target: Target, *, size: int, points: int) -> Figures:
    """Submit a sweep whose job has a text of this size, and read its results again and again."""
    caller = Caller(target)
    grid = {"sparsity": [round(0.1 + number / 1000, 3) for number in range(points)]}
    sweep = caller.ask("POST", "/v1/sweeps", json={"job": _long_job(size), "grid": grid})
    if sweep is not None:
        caller.ask_all(3, [("GET", f"/v1/sweeps/{sweep['id']}/results", {})] * 6)
    return caller.figures


def long_jobs(target: Target, *, size: int, jobs: int) -> Figures:
    """Submit jobs with a text of this size, and list them six times at once."""
    caller = Caller(target)
    caller.ask_all(1, [("POST", "/v1/jobs", {"json": _long_job(size) | {"sparsity": 0.5}})] * jobs)
    caller.ask_all(6, [("GET", "/v1/jobs?limit=200", {})] * 6)
    return caller.figures


def deep_tokens(target: Target, *, tokens: int, levels: int) -> Figures:
    """Send identity tokens whose claims are lists in lists, without a key."""
    header, claims = (
        base64.urlsafe_b64encode(each).decode().rstrip("=") for each in (b'{"alg":"RS256"}', b"[" * levels)
    )
    caller = Caller(Target(target.host, target.port, ""))
    body = {"token": f"{header}.{claims}.e30"}
    caller.ask_all(4, [("POST", "/v1/workload-keys", {"json": body})] * tokens)
    return caller.figures


def multiplying(target: Target, job: str) -> dict[str, Callable[[], Figures]]:
    """Return the attacks by name."""
    sizes = (880_000, 60_000)  # above the limit of a job's texts, and just below it
    return {
        "tokens 11,000 levels deep": lambda: deep_tokens(target, tokens=50, levels=11_000),
        **{
            f"sweep of {size // 1000} KB × 500 points": lambda size=size: long_sweep(target, size=size, points=500)  # type: ignore[misc]
            for size in sizes
        },
        **{
            f"180 jobs of {size // 1000} KB, six lists": lambda size=size: long_jobs(target, size=size, jobs=180)  # type: ignore[misc]
            for size in sizes
        },
        "990 event streams": lambda: asyncio.run(held_streams(target, job=job, streams=990, seconds=10)),
        "100,000 tensors in a file, models listed": lambda: many_tensors(target, name="one", files=1, tensors=100_000),
        "six headers of 280,000 tensors": lambda: many_tensors(target, name="six", files=6, tensors=280_000),
    }
