"""Artifacts pushed to a bucket: whole, with their hashes, the manifest last, and only what is not there yet."""

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from s3fs import S3FileSystem
from sqlalchemy.orm import Session, sessionmaker

from core.service.publications import to_s3
from core.settings import Settings
from core.storage import Store
from tests.api.ended_job import succeeded_job
from tests.publications.conftest import FILES, Publish, content
from tests.publications.pushable_hub import PushedHub
from tests.stores.conftest import BUCKET

CarryOut = Callable[[str], dict[str, Any]]
Bucket = Callable[..., dict[str, Any]]


@pytest.fixture(params=["bucket"])
def settings(
    settings: Settings, s3_endpoint: str, s3_service: S3FileSystem, request: pytest.FixtureRequest
) -> Settings:
    """The operator's own store is a bucket too, from which artifacts go in pieces, or a folder."""
    if request.param == "folder":
        return settings.model_copy(update={"store_endpoint": s3_endpoint})
    store = {
        "store_url": f"s3://{BUCKET}/store-{uuid.uuid4().hex}",
        "store_endpoint": s3_endpoint,
        "store_region": "us-east-1",
        "store_access_key": "key",
        "store_secret_key": Settings(store_secret_key="secret").store_secret_key,
    }
    return settings.model_copy(update=store)


@pytest.fixture
def body(s3_endpoint: str) -> dict[str, Any]:
    """The fields of a request but for where."""
    return {
        "access_key": "AKIAUSER",
        "secret_key": "users-secret",
        "region": "us-east-1",
        "endpoint": s3_endpoint,
    }


@pytest.fixture
def to_bucket(publish: Publish, carry_out: CarryOut, body: dict[str, Any], s3_service: S3FileSystem) -> Bucket:
    """Publishes to s3://secateur/PREFIX, and carries it out."""

    def go(prefix: str, **changed: Any) -> dict[str, Any]:
        asked = body | {"to": f"s3://{BUCKET}/{prefix}", "token": None} | changed
        return carry_out(publish(**asked)["id"])

    return go


def keys(service: S3FileSystem, prefix: str) -> dict[str, bytes]:
    found = service.find(f"{BUCKET}/{prefix}")
    return {path.removeprefix(f"{BUCKET}/{prefix}/"): service.cat_file(path) for path in found}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is asked of the service: (operation, name of the file), looks apart."""
    made: list[tuple[str, str]] = []
    call = S3FileSystem.call_s3

    def noted(self: S3FileSystem, method: str, *args: Any, **kwargs: Any) -> Any:
        if method.startswith(("put_", "complete_", "delete_")):
            made.append((method, kwargs["Key"].rpartition("/")[2]))
        return call(self, method, *args, **kwargs)

    monkeypatch.setattr(S3FileSystem, "call_s3", noted)
    return made


def test_every_file_arrives_the_manifest_last(
    to_bucket: Bucket, s3_service: S3FileSystem, calls: list[tuple[str, str]]
) -> None:
    done = to_bucket("runs/7")
    assert (done["status"], done["error"]) == ("succeeded", None)
    assert done["result"] == {"url": f"s3://{BUCKET}/runs/7", "commit": None}
    assert done["progress"]["bytes"] == sum(map(len, FILES.values())) and done["progress"]["files"] == len(FILES)
    assert keys(s3_service, "runs/7") == FILES
    assert calls[-1] == ("put_object", "secateur.json") and len(calls) == len(FILES)
    head = s3_service.call_s3("head_object", Bucket=BUCKET, Key="runs/7/config.json")
    assert head["Metadata"] == {"sha256": hashlib.sha256(FILES["config.json"]).hexdigest()}


def test_what_is_there_is_not_sent_again_and_what_differs_is(
    to_bucket: Bucket, s3_service: S3FileSystem, calls: list[tuple[str, str]]
) -> None:
    to_bucket("again")
    calls.clear()
    assert to_bucket("again")["status"] == "succeeded" and calls == []
    path = f"{BUCKET}/again/model-00003-of-00003.safetensors"
    s3_service.pipe_file(path, b"x" * len(FILES["model-00003-of-00003.safetensors"]))
    calls.clear()
    assert to_bucket("again")["status"] == "succeeded"
    manifest = "secateur.json"
    third = ("put_object", "model-00003-of-00003.safetensors")
    assert calls == [("delete_object", manifest), third, ("put_object", manifest)]
    assert keys(s3_service, "again") == FILES


def test_large_files_go_in_parts(
    api: TestClient,
    sessions: sessionmaker[Session],
    store: Store,
    tmp_path: Path,
    model: str,
    s3_service: S3FileSystem,
    body: dict[str, Any],
    carry_out: CarryOut,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[tuple[str, str]],
) -> None:
    monkeypatch.setattr(to_s3, "_WRITE_BYTES", 5 * 2**20)
    files = {"model.safetensors": content("large", 12 * 2**20 + 1), "secateur.json": b"{}"}
    job = succeeded_job(api, sessions, store, tmp_path / "large", model=model, files=files)
    for _ in range(2):
        asked = api.post(f"/v1/jobs/{job}/publish", json={**body, "to": f"s3://{BUCKET}/parts"}).json()
        assert carry_out(asked["id"])["error"] is None
    assert calls == [("complete_multipart_upload", "model.safetensors"), ("put_object", "secateur.json")], "sent once"
    assert keys(s3_service, "parts") == files


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's own client
def test_from_a_bucket_to_the_hub(publish: Publish, carry_out: CarryOut, hub: PushedHub) -> None:
    done = carry_out(publish()["id"])
    assert done["status"] == "succeeded", done["error"]
    assert {path: data for path, data in hub.files("acme/pruned").items() if path in FILES} == FILES


@pytest.mark.parametrize("settings", ["folder"], indirect=True)
def test_keys_that_are_not_good(to_bucket: Bucket, s3_endpoint: str) -> None:
    reset = f"{s3_endpoint}/moto-api/reset-auth"
    httpx.post(reset, content=b"0").raise_for_status()  # from now on keys are looked at
    try:
        failed = to_bucket("refused")
    finally:
        httpx.post(reset, content=b"inf").raise_for_status()
    assert (failed["status"], failed["error"]["param"]) == ("failed", "access_key")
    assert failed["error"]["code"] == "destination_refused"
