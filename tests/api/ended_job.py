"""A job that succeeded, with a report and an artifact, without a worker."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import claim, finish_succeeded, heartbeat
from core.service.registry.tables import ModelRow
from core.storage import Store, artifact_prefix

FILES: Mapping[str, bytes] = MappingProxyType({"model.safetensors": b"weights", "secateur.json": b"{}"})


def succeeded_job(
    api: httpx.Client,
    sessions: sessionmaker[Session],
    store: Store,
    folder: Path,
    *,
    model: str,
    files: Mapping[str, bytes] = FILES,
    metrics: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Id of a job on `model` that a worker took and finished; its artifact are `files`, written to `folder`."""
    body = {"model": model, "method": "magnitude", "sparsity": 0.5}
    job: str = api.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    assert finish_next(sessions, store, folder, files=files, metrics=metrics) == job
    return job


def finish_next(
    sessions: sessionmaker[Session],
    store: Store,
    folder: Path,
    *,
    files: Mapping[str, bytes] = FILES,
    metrics: Mapping[str, Any] = MappingProxyType({}),
) -> str | None:
    """Id of the job that a worker took and finished, None where none waits."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with transaction(sessions) as session:
        heartbeat(session, "worker_1", queue="default", device="cpu", hostname="bed", pid=1)
        taken = claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
        if taken is None:
            return None
        stored = store.publish(folder, artifact_prefix(taken.job_id, taken.attempt))
        same = session.scalar(select(ModelRow.description).where(ModelRow.name == taken.model.name))
        done = {"metrics": dict(metrics), "report": {"layers": [], "artifact": same}, "files": stored}
        assert finish_succeeded(session, taken.job_id, taken.attempt, **done)
    return taken.job_id
