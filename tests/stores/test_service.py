"""The service with its files in a bucket: uploads, jobs and downloads, over real HTTP."""

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pyarrow
import pyarrow.parquet
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.model import resolve_model
from core.service.jobs.tables import JobRow
from core.service.sources.folders import content_hash
from core.service.teams.tables import TeamRow
from core.settings import Settings
from core.storage import Store, open_store
from tests.model_folders import write_llama, write_text
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


def upload(api: httpx.Client, folder: Path, part: int = PART, **body: Any) -> dict[str, Any]:
    contents = {file.name: file.read_bytes() for file in folder.iterdir()}
    files = [
        {"path": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    ]
    which = api.post("/v1/uploads", json=body | {"files": files}).raise_for_status().json()["id"]
    for name, content in contents.items():
        for offset in range(0, len(content), part):
            api.put(
                f"/v1/uploads/{which}/files/{name}?offset={offset}",
                content=content[offset : offset + part],
                headers={"Content-Type": "application/octet-stream"},
            ).raise_for_status()
    completed = api.post(f"/v1/uploads/{which}/complete")
    assert completed.status_code == 201, completed.text
    answer: dict[str, Any] = completed.json()
    return answer


@pytest.fixture
def job(
    live_api: httpx.Client, settings: Settings, sessions: sessionmaker[Session], job_body: dict[str, Any]
) -> dict[str, Any]:
    """A job that has pruned (with a stand-in for the engine) and stored its artifact."""
    submitted = live_api.post("/v1/jobs", json=job_body).raise_for_status().json()
    assert run_once(settings, sessions, "{}", threading.Event(), "here") == "succeeded"
    return submitted


def test_models_and_texts_are_uploaded_to_the_bucket(
    live_api: httpx.Client, tmp_path: Path, store: Store, sessions: sessionmaker[Session], team: str
) -> None:
    folder = write_llama(tmp_path / "llama", hidden=512, intermediate=1024)
    assert (folder / "model.safetensors").stat().st_size > 2 * PART, "one part, nothing to put together"
    model = upload(live_api, folder, kind="model", name="sent")
    assert model["revision"] == content_hash(folder)
    store.fetch(f"models/{model['id']}", "model.safetensors", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == (folder / "model.safetensors").read_bytes()
    text = write_text(tmp_path / "text" / "numbers.txt")
    dataset = upload(live_api, text.parent, part=1000, kind="dataset", name="numbers-sent")
    assert (dataset["documents"], dataset["bytes"]) == (200, text.stat().st_size)
    table = pyarrow.table({"text": [f"document {number}" for number in range(3000)]})
    (tmp_path / "parquet").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "parquet" / "a.parquet", row_group_size=500)
    assert upload(live_api, tmp_path / "parquet", kind="dataset", name="table")["documents"] == 3000
    assert live_api.delete("/v1/datasets/table").status_code == 204
    assert list(store.children("uploads")) == [] and list(store.unfinished()) == []
    assert live_api.delete("/v1/models/sent").status_code == 204
    assert live_api.delete("/v1/datasets/numbers-sent").status_code == 204
    assert list(store.children()) == ["owner"]
    with transaction(sessions) as session:
        assert session.scalars(select(TeamRow.stored_bytes).where(TeamRow.id == team)).one() == 0


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
    assert len(whole) == weights["bytes"]
    part = live_api.get(url, headers={"Range": "bytes=5-14"}, follow_redirects=True)
    assert (part.status_code, part.content) == (206, whole[5:15])
    resumed = live_api.get(url, headers={"Range": "bytes=5-", "If-Range": f'"{weights["sha256"]}"'})
    assert (resumed.status_code, resumed.content) == (206, whole[5:])
    assert live_api.get(url, headers={"If-None-Match": f'"{weights["sha256"]}"'}).status_code == 304
    head = live_api.head(url)
    assert (head.status_code, head.headers["content-length"]) == (200, str(weights["bytes"]))
    manifest = json.loads(b"".join(store.open_range(f"{job['id']}/attempt-1", "secateur.json", 0, 2**20)))
    assert manifest["files"]["model.safetensors"]["sha256"] == weights["sha256"]


@pytest.mark.parametrize("settings", [{"presigned_seconds": 0}], indirect=True)
def test_downloads_go_through_the_api_where_clients_cannot_reach_the_bucket(
    live_api: httpx.Client, job: dict[str, Any]
) -> None:
    url = f"/v1/jobs/{job['id']}/artifacts/model.safetensors"
    whole = live_api.get(url)
    assert whole.status_code == 200
    assert whole.headers["etag"] == f'"{hashlib.sha256(whole.content).hexdigest()}"'
    part = live_api.get(url, headers={"Range": "bytes=-7"})
    assert (part.status_code, part.content) == (206, whole.content[-7:])


def test_an_artifact_is_deleted_unless_it_is_needed(
    live_api: httpx.Client,
    job: dict[str, Any],
    job_body: dict[str, Any],
    store: Store,
    sessions: sessionmaker[Session],
    team: str,
) -> None:
    artifacts = f"/v1/jobs/{job['id']}/artifacts"
    further = live_api.post("/v1/jobs", json=job_body | {"model": f"job:{job['id']}"}).json()
    refused = live_api.delete(artifacts)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict") and further["id"] in refused.text
    assert live_api.delete(f"/v1/jobs/{further['id']}/artifacts").status_code == 409
    live_api.post(f"/v1/jobs/{further['id']}/cancel").raise_for_status()
    assert live_api.delete(artifacts).status_code == 204
    assert live_api.get(artifacts).json()["data"] == []
    assert live_api.get(f"{artifacts}/config.json").status_code == 404
    assert live_api.get(f"/v1/jobs/{job['id']}/report").status_code == 200
    assert store.usage(f"{job['id']}/attempt-1") is None
    assert live_api.delete(artifacts).status_code == 204
    assert live_api.delete("/v1/jobs/job_none/artifacts").status_code == 404
    chained = live_api.post("/v1/jobs", json=job_body | {"model": f"job:{job['id']}"})
    assert (chained.status_code, chained.json()["code"]) == (422, "unknown_model")
    with transaction(sessions) as session:
        assert session.scalars(select(TeamRow.stored_bytes).where(TeamRow.id == team)).one() == 0


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
