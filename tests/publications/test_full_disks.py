"""Full disks while an artifact is published: said clearly, nothing that passes for an artifact, and it goes on."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from s3fs import S3FileSystem
from sqlalchemy import func, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.publications import to_s3
from core.service.publications.tables import PublicationRow
from core.settings import Settings
from core.storage import Store
from tests.api.ended_job import succeeded_job
from tests.publications.conftest import USERS_TOKEN, content
from tests.publications.pushable_hub import PushedHub
from tests.publications.test_bucket import CarryOut, body, keys
from tests.small_disks import small_disk
from tests.stores.conftest import BUCKET
from tests.worker.filling_runner import fill

__all__ = ["body"]

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": content("large", 2**20),
    "secateur.json": b"{}",
}


@pytest.fixture
def settings(settings: Settings, s3_endpoint: str) -> Settings:
    return settings.model_copy(update={"store_endpoint": s3_endpoint, "retry_delay_seconds": 3600.0})


@pytest.fixture
def job(api: TestClient, sessions: sessionmaker[Session], store: Store, tmp_path: Path, model: str) -> str:
    return succeeded_job(api, sessions, store, tmp_path / "artifact", model=model, files=FILES)


@pytest.fixture
def bucket_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The disk on which the S3 service keeps every object of more than a few bytes."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_KEY_BUFFER_SIZE", "100")
    with small_disk(tmp_path / "bucket", 4 * 2**20) as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        yield folder


def test_a_bucket_whose_disk_is_full_is_tried_again_and_shows_no_artifact_meanwhile(
    api: TestClient,
    job: str,
    body: dict[str, Any],
    carry_out: CarryOut,
    sessions: sessionmaker[Session],
    s3_service: S3FileSystem,
    bucket_disk: Path,
) -> None:
    fill(bucket_disk)
    asked = api.post(f"/v1/jobs/{job}/publish", json={**body, "to": f"s3://{BUCKET}/full"}).json()
    waiting = carry_out(asked["id"])
    assert (waiting["status"], waiting["attempt"]) == ("queued", 1)
    assert waiting["error"]["code"] == "destination_unavailable" and waiting["error"]["retryable"]
    assert "secateur.json" not in keys(s3_service, "full"), "what is there is no artifact"
    (bucket_disk / "of-somebody-else").unlink()
    with transaction(sessions) as session:
        session.execute(update(PublicationRow).values(available_at=func.now()))
    done = carry_out(asked["id"])
    assert (done["status"], done["attempt"], done["error"]) == ("succeeded", 2, None)
    assert keys(s3_service, "full") == FILES


def test_a_bucket_that_says_it_is_full_is_named(
    api: TestClient, job: str, body: dict[str, Any], carry_out: CarryOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    def full(*_: object) -> None:
        raise ClientError({"Error": {"Code": "XMinioStorageFull"}, "ResponseMetadata": {"HTTPStatusCode": 507}}, "put")

    monkeypatch.setattr(to_s3, "_send", full)
    asked = api.post(f"/v1/jobs/{job}/publish", json={**body, "to": f"s3://{BUCKET}/named"}).json()
    assert carry_out(asked["id"])["error"]["message"] == f"bucket {BUCKET!r} has no space left"


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's own client
def test_a_full_disk_of_the_machine_that_publishes_is_told_as_its_own(
    api: TestClient,
    job: str,
    hub: PushedHub,
    carry_out: CarryOut,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The hub's client may keep parts of what it sends on this machine."""
    from huggingface_hub import HfApi

    with small_disk(tmp_path / "cache", 2**16) as folder:
        fill(folder)

        def keep(*_: object, **__: object) -> None:
            (folder / "part").write_bytes(b"0" * 2**16)

        monkeypatch.setattr(HfApi, "preupload_lfs_files", keep)
        asked = api.post(f"/v1/jobs/{job}/publish", json={"to": "hub:acme/full", "token": USERS_TOKEN}).json()
        error = carry_out(asked["id"])["error"]
    assert (error["code"], error["retryable"]) == ("disk_full", True), error
