"""A job that succeeded without a worker, and its artifact: a tiny model, signed as a worker signs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy.orm import Session, sessionmaker

from core.pipeline.reports.manifest import finalise
from core.pipeline.reports.report import Report
from core.signing import new_private_key, read_signer
from core.storage import Store
from tests.api.ended_job import finish_next
from tests.api.uploading import announced, send_rest, start
from tests.model_folders import write_llama
from tests.recipes import recipe_of


def write_key(file: Path) -> Path:
    file.write_text(new_private_key())
    return file


@dataclass(frozen=True)
class Signed:
    """Places where signed artifacts are made: the API, the store, a folder for files."""

    api: httpx.Client
    sessions: sessionmaker[Session]
    store: Store
    folder: Path

    def artifact(self, body: dict[str, Any], key: Path | None, *, seed: int = 1) -> tuple[str, Path]:
        """Id of a job that a worker took and finished, and the folder of its artifact."""
        job = self.api.post("/v1/jobs", json=body).raise_for_status().json()
        folder = write_llama(self.folder / job["id"], seed=seed)
        facts = {
            "job": job["id"],
            "attempt": 1,
            "model": {"name": job["model"], "revision": job["model_revision"]},
            "texts": {"calibration": {"name": "leaves", "sha256": "b" * 64}, "evaluation": {}},
            "versions": {"torch": "2.9"},
            "metrics": {
                "bytes": {"dense": 2, "artifact": 1},
                "parameters": {"dense": 2, "nonzero": 1},
                "sparsity": {"prunable": 0.5, "model": 0.5},
            },
        }
        recipe, signer = recipe_of(job["method"], model=job["model"]), None if key is None else read_signer(key)
        finalise(folder, recipe=recipe, body=recipe.body(), report=Report.model_validate(facts), signer=signer)
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        assert finish_next(self.sessions, self.store, self.folder / "work", files=files) == job["id"]
        return job["id"], folder


def upload(api: httpx.Client, folder: Path, name: str) -> dict[str, Any]:
    """Send the files of an artifact that belong to a model, and its statement, as a client does."""
    sent = announced(folder, name)
    sent["files"] = [file for file in sent["files"] if file["path"] not in ("README.md", "secateur.json")]
    opened = start(api, sent)
    send_rest(api, opened, folder)
    completed: dict[str, Any] = api.post(f"/v1/uploads/{opened['id']}/complete").raise_for_status().json()
    return completed
