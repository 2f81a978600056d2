"""A job that succeeded, with a report and an artifact, without a worker."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import claim, finish_succeeded, heartbeat
from core.storage import Store, artifact_prefix


def succeeded_job(
    api: httpx.Client,
    sessions: sessionmaker[Session],
    store: Store,
    folder: Path,
    *,
    model: str,
    files: Mapping[str, bytes] = MappingProxyType({"model.safetensors": b"weights", "secateur.json": b"{}"}),
    metrics: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Id of a job on `model` that a worker took and finished; its artifact are `files`, written to `folder`."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    body = {"model": model, "method": "magnitude", "sparsity": 0.5}
    job: str = api.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    with transaction(sessions) as session:
        heartbeat(session, "worker_1", queue="default", device="cpu", hostname="bed", pid=1)
        claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
        stored = store.publish(folder, artifact_prefix(job, 1))
        assert finish_succeeded(session, job, 1, metrics=dict(metrics), report={"layers": []}, files=stored)
    return job
