"""The service with its files in a bucket: uploads, jobs and downloads, over real HTTP."""

import hashlib
import threading
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.model import resolve_model
from core.service.jobs.tables import JobRow
from core.settings import Settings
from core.storage import Store, open_store
from tests.worker.supervise import run_once

PART = 5 * 2**20


@pytest.fixture
def settings(settings: Settings, s3_settings: Settings, request: pytest.FixtureRequest) -> Settings:
    of_store = {name: value for name, value in s3_settings if name.startswith("store_")}
    more = getattr(request, "param", {}) | {"home": settings.home.resolve(), "upload_part_bytes": PART}
    return settings.model_copy(update=of_store | more)


@pytest.fixture
def store(settings: Settings) -> Store:
    return open_store(settings)


@pytest.fixture
def job(
    live_api: httpx.Client, settings: Settings, sessions: sessionmaker[Session], job_body: dict[str, Any]
) -> dict[str, Any]:
    """A job that has pruned (with a stand-in for the engine) and stored its artifact."""
    submitted = live_api.post("/v1/jobs", json=job_body).raise_for_status().json()
    assert run_once(settings, sessions, "{}", threading.Event(), "here") == "succeeded"
    return submitted


def test_a_job_ends_with_its_artifact_in_the_bucket_and_downloadable(
    live_api: httpx.Client, job: dict[str, Any], store: Store, settings: Settings
) -> None:
    artifacts = f"/v1/jobs/{job['id']}/artifacts"
    files = {file["path"]: file for file in live_api.get(artifacts).raise_for_status().json()["data"]}
    assert {"config.json", "model.safetensors", "secateur.json"} <= files.keys()
    assert not settings.store_root.exists(), "something went to a local folder"
    for path, file in files.items():
        redirect = live_api.get(f"{artifacts}/{path}")
        assert (redirect.status_code, redirect.headers["etag"]) == (307, f'"{file["sha256"]}"')
        content = httpx.get(redirect.headers["location"])
        assert hashlib.sha256(content.content).hexdigest() == file["sha256"]
        assert content.headers["content-disposition"] == f"attachment; filename*=UTF-8''{path}"
    weights = files["model.safetensors"]
    url = f"{artifacts}/model.safetensors"
    whole = live_api.get(url, follow_redirects=True).content
    resumed = live_api.get(
        url, headers={"Range": "bytes=5-", "If-Range": f'"{weights["sha256"]}"'}, follow_redirects=True
    )
    assert (resumed.status_code, resumed.content) == (206, whole[5:])
    assert live_api.get(url, headers={"If-None-Match": f'"{weights["sha256"]}"'}).status_code == 304


def test_an_artifact_cannot_be_deleted_while_a_job_is_made_of_it(
    job: dict[str, Any], store: Store, sessions: sessionmaker[Session], team: str, settings: Settings
) -> None:
    query = select(JobRow.id).where(JobRow.id == job["id"]).with_for_update(nowait=True)  # deletion's, but it waits
    with sessions() as submits, sessions() as deletes:
        resolve_model(RequestContext(submits, team, store, settings), f"job:{job['id']}")
        with pytest.raises(OperationalError, match="could not obtain lock"):
            deletes.execute(query)
        deletes.rollback()
        submits.rollback()
        deletes.execute(query)
