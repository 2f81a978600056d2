"""A revision of the service, installed beside this one, run with a home of its own, and used through its REST API."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil

from bench.parts import free_port
from secateur_wire.provenance import PROVENANCE
from tests.golden.inputs import CLASSIFIERS
from worker.processes import ChildProcess, spawn

ROOT = Path(__file__).parents[2]
_ENDED = ("succeeded", "failed", "cancelled")
_UNSTEADY = re.compile(
    r"second|_at$|peak|elapsed|latency|memory|worker|host|time|^id$|^job$|job_id|machine|version|revision|attempt|"
    r"resumed|^estimate$|README"
)
"""Keys of reports and manifests whose values differ from run to run, or with the jobs that ran before."""
_UNSTEADY_TEXT = re.compile(r"\d (s|ms|min|MB|GB|MiB|GiB)\b|20\d\d-\d\d|\btime\b|The key has the id")
"""Notes and lines of a model card that tell of times, or of the key of a home."""
_TEXT_FILES = ("README.md", "secateur.json")
_LONGEST_SECONDS = 900


def install(revision: str, folder: Path) -> Path:
    """Return a folder for PYTHONPATH with the packages of a revision of this repository, installed there once."""
    sha = _git("rev-parse", f"{revision}^{{commit}}").strip()
    site = folder / sha[:12]
    if not (site / "done").exists():
        shutil.rmtree(site, ignore_errors=True)
        with TemporaryDirectory() as place:
            source = Path(place) / "source"
            source.mkdir()
            archive = subprocess.run(["git", "archive", sha], cwd=ROOT, capture_output=True, check=True).stdout
            subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
            subprocess.run([*pip, "--target", str(site), str(source / "client"), str(source)], check=True)
        (site / "done").touch()
    return site


class Service:
    """A running revision: `client` asks it, `process` is `secateur serve`."""

    def __init__(self, client: httpx.Client, process: ChildProcess) -> None:
        self.client = client
        self.process = process

    def register(self, inputs: Path, models: Iterable[str]) -> None:
        for model in sorted(models):
            self._created("/v1/models", {"name": model, "path": str(inputs / "models" / model)})
        self._created("/v1/datasets", {"name": "text", "path": str(inputs / "text.txt")})
        for name in CLASSIFIERS:
            self._created("/v1/datasets", {"name": f"images-{name}", "path": str(inputs / "images" / name)})

    def run(self, body: dict[str, Any], *, killed_in: str | None = None) -> dict[str, Any]:
        """Return what a job came to: its status, stored files, texts, metrics, report and attempts.

        `killed_in`: a stage in which its runner is killed once, as soon as part of it is done.
        """
        job = self._created("/v1/jobs", body)
        deadline = time.monotonic() + _LONGEST_SECONDS
        while job["status"] not in _ENDED:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{body['method']} on {body['model']}: {job['status']} after {_LONGEST_SECONDS} s")
            if killed_in == job["stage"] and job["progress"] and self._kill_runners():
                killed_in = None
            time.sleep(0.005 if killed_in else 0.05)
            job = self._get(f"/v1/jobs/{job['id']}")
        return self._result(job)

    def openapi(self) -> dict[str, Any]:
        document: dict[str, Any] = self._get("/openapi.json")
        return document

    def _result(self, job: dict[str, Any]) -> dict[str, Any]:
        path = f"/v1/jobs/{job['id']}"
        files = self._get(f"{path}/artifacts")["data"] if job["status"] == "succeeded" else []
        stored = {}
        for file in files:
            content = self.client.get(f"{path}/artifacts/{file['path']}").raise_for_status().content
            if file["path"] == PROVENANCE:
                continue  # it names the attempt and the key, and hashes of files that tell of times
            is_text = file["path"] in _TEXT_FILES
            stored[file["path"]] = _steady_text(content, job["id"]) if is_text else hashlib.sha256(content).hexdigest()
        report = self.client.get(f"{path}/report")
        return {
            "status": job["status"],
            "error": job["error"],
            "attempts": job["attempt"],
            "resumed": _resumed(report.json()) if report.is_success else None,
            "files": stored,
            "metrics": _steady(job["metrics"]),
            "report": _steady(report.json()) if report.is_success else None,
            "body": {name: job[name] for name in ("method", "pattern", "sparsity", "parameters") if name in job},
        }

    def _kill_runners(self) -> bool:
        """Kill the processes of the running stage, those it was forked from apart; return whether there was one."""
        killed = False
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if child.name().startswith("secateur-runner") or "secateur-runner" in " ".join(child.cmdline()[:1]):
                    child.send_signal(signal.SIGKILL)
                    killed = True
            except psutil.NoSuchProcess:
                continue
        return killed

    def _created(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.client.post(path, json=body)
        if not answer.is_success:
            raise RuntimeError(f"POST {path} {json.dumps(body)}: {answer.text}")
        created: dict[str, Any] = answer.json()
        return created

    def _get(self, path: str) -> Any:
        return self.client.get(path).raise_for_status().json()


@contextmanager
def serving(site: Path, inputs: Path) -> Iterator[Service]:
    """Serve an installed revision from a home of its own, which goes with it."""
    with TemporaryDirectory() as place:
        port = free_port()
        home = Path(place) / "home"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")},
            "PYTHONPATH": str(site),
            "OMP_NUM_THREADS": "1",
            "SECATEUR_HOME": str(home),
            "SECATEUR_ALLOWED_ROOTS": str(inputs),
            "SECATEUR_THREADS": "1",
            "SECATEUR_DEVICE": "cpu",
            "SECATEUR_RETRY_DELAY_SECONDS": "0",
            "SECATEUR_DISPATCH_INTERVAL_SECONDS": "0.2",
            "SECATEUR_WORKER_POLL_SECONDS": "0.5",
            "SECATEUR_DISK_WATERMARK_BYTES": "1000000",
            "SECATEUR_REQUESTS_PER_MINUTE": "0",
        }
        _require_own_sources(site, environment)
        command = [sys.executable, "-c", "from secateur.cli import main; main()", "serve", "--port", str(port)]
        with open(site / "serve.log", "wb") as log:
            process = spawn(command, name="golden", stdout=log, stderr=log, environment=environment, folder=site)
        try:
            _until_ready(f"http://127.0.0.1:{port}", process, site / "serve.log")
            key = {"Authorization": f"Bearer {(home / 'api-key').read_text().strip()}"}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=key, timeout=60) as client:
                yield Service(client, process)
        finally:
            process.end(grace_seconds=60)


def _require_own_sources(site: Path, environment: dict[str, str]) -> None:
    """Raise RuntimeError where a process of the revision would import the packages of another one, as of this tree."""
    site = site.resolve()
    for package in (each.parent.name for each in site.glob("*/__init__.py")):
        command = [sys.executable, "-c", f"import {package}; print({package}.__file__)"]
        ran = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, check=True)
        if not Path(ran.stdout.strip()).is_relative_to(site):
            raise RuntimeError(f"{package} comes from {ran.stdout.strip()}, not from {site}")


def _until_ready(url: str, process: ChildProcess, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.is_running():
        try:
            if httpx.get(f"{url}/readyz").json().get("can_run"):
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"the service did not start:\n{log.read_text(errors='replace')}")


def _resumed(report: dict[str, Any]) -> Any:
    """Return the block, round or step the last attempt went on from; None where it began anew."""
    engine = report.get("engine") or {}
    return next((value for name, value in sorted(engine.items()) if name.startswith("resumed") and value), None)


def _steady(value: Any) -> Any:
    """Return a JSON value without what differs from run to run: times, peaks, names of jobs."""
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in sorted(value.items()) if not _UNSTEADY.search(key)}
    if isinstance(value, list):
        return [_steady(each) for each in value if not (isinstance(each, str) and _UNSTEADY_TEXT.search(each))]
    return value


def _steady_text(content: bytes, job_id: str) -> Any:
    text = content.decode().replace(job_id, "JOB")
    try:
        return _steady(json.loads(text))
    except ValueError:  # a model card
        return _steady(text.splitlines())


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
