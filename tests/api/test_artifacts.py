import hashlib
import io
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import literal, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import claim, finish_succeeded
from core.service.jobs.tables import ArtifactFileRow
from core.service.retention.reads import is_being_read
from core.settings import Settings
from core.storage import LocalStore, artifact_prefix

CONTENT = bytes(range(256)) * 10


@pytest.fixture
def artifact(
    api: TestClient,
    job_body: dict[str, Any],
    sessions: sessionmaker[Session],
    store: LocalStore,
    tmp_path: Path,
) -> str:
    """Address of a stored file."""
    job = api.post("/v1/jobs", json=job_body).raise_for_status().json()["id"]
    folder = tmp_path / "artifact"
    (folder / "original").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(CONTENT)
    (folder / "original" / "a b.txt").write_bytes(b"")
    (folder / "secateur.json").write_text("{}")
    with pytest.raises(ValueError, match="name"):
        store.publish(folder, artifact_prefix(job, 1))
    (folder / "original" / "a b.txt").rename(folder / "original" / "empty.txt")
    files = store.publish(folder, artifact_prefix(job, 1))
    with transaction(sessions) as session:
        claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
        assert finish_succeeded(session, job, 1, metrics={}, report={}, files=files)
    return f"/v1/jobs/{job}/artifacts"


def test_a_download_is_whole_and_names_its_hash(api: TestClient, artifact: str) -> None:
    response = api.get(f"{artifact}/model.safetensors")
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["etag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert response.headers["content-length"] == str(len(CONTENT))
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-disposition"].startswith("attachment")
    assert api.get(f"{artifact}/original/empty.txt").content == b""
    head = api.head(f"{artifact}/model.safetensors")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(CONTENT)))


def test_a_whole_artifact_is_one_archive_of_known_length(
    api: TestClient, artifact: str, store: LocalStore, sessions: sessionmaker[Session]
) -> None:
    response = api.get(f"{artifact}.tar")
    assert (response.status_code, response.headers["content-length"]) == (200, str(len(response.content)))
    assert response.headers["content-type"] == "application/x-tar"
    job = artifact.split("/")[3]
    assert response.headers["content-disposition"].endswith(f"{job}.tar")
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        held = {each.name: (taken := archive.extractfile(each)) and taken.read() for each in archive}
        assert all(each.isfile() and each.mode == 0o644 and each.mtime > 0 for each in archive)
    assert held == {
        f"{job}/model.safetensors": CONTENT,
        f"{job}/original/empty.txt": b"",
        f"{job}/secateur.json": b"{}",
    }
    head = api.head(f"{artifact}.tar")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == response.headers["content-length"]
    with transaction(sessions) as session:
        assert session.scalar(select(is_being_read(literal(job))))
    store.delete(artifact_prefix(job, 1))
    assert api.get(f"{artifact}.tar").json()["code"] == "not_found", "before anything of it was sent"


def test_an_archive_is_made_while_it_is_sent(
    live_api: httpx.Client, artifact: str, sessions: sessionmaker[Session], settings: Settings
) -> None:
    """Its file is far larger than what is held of it at once, and one that shrank breaks off before its length."""
    job, size = artifact.split("/")[3], 2**26
    stored = settings.store_root / artifact_prefix(job, 1) / "model.safetensors"
    with stored.open("r+b") as file:
        file.truncate(size)
    with transaction(sessions) as session:
        session.execute(update(ArtifactFileRow).where(ArtifactFileRow.bytes == len(CONTENT)).values(bytes=size))
    tracemalloc.start()
    with live_api.stream("GET", f"{artifact}.tar") as response:
        assert int(response.headers["content-length"]) > size
        assert sum(map(len, response.iter_raw())) == int(response.headers["content-length"])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < size / 4
    with stored.open("r+b") as file:
        file.truncate(size // 2)
    with pytest.raises(httpx.RemoteProtocolError), live_api.stream("GET", f"{artifact}.tar") as response:
        for _ in response.iter_raw():
            pass


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=2500-", 2500, 2560),
        ("bytes=-60", 2500, 2560),
        ("bytes=2559-9999", 2559, 2560),
    ],
)
def test_a_range_is_answered_with_206(api: TestClient, artifact: str, wanted: str, start: int, end: int) -> None:
    response = api.get(f"{artifact}/model.safetensors", headers={"Range": wanted})
    assert (response.status_code, response.content) == (206, CONTENT[start:end])
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/2560"
    assert response.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("wanted", ["bytes=2560-", "bytes=9999-10000", "bytes=-0"])
def test_a_range_outside_the_file_is_416(api: TestClient, artifact: str, wanted: str) -> None:
    response = api.get(f"{artifact}/model.safetensors", headers={"Range": wanted})
    assert (response.status_code, response.json()["code"]) == (416, "range_not_satisfiable")
    assert response.headers["content-range"] == "bytes */2560"
    assert api.get(f"{artifact}/original/empty.txt", headers={"Range": "bytes=0-"}).status_code == 416


@pytest.mark.parametrize("wanted", ["bytes=5-1", "bytes=a-b", "bytes=0-1,3-4", "lines=1-2", "bytes=-", "", "bytes=1-²"])
def test_a_range_that_is_none_is_ignored(api: TestClient, artifact: str, wanted: str) -> None:
    response = api.get(f"{artifact}/model.safetensors", headers={b"Range": wanted.encode("latin-1")})
    assert (response.status_code, len(response.content)) == (200, len(CONTENT))


def test_what_is_known_is_not_sent_again(api: TestClient, artifact: str) -> None:
    etag = api.get(f"{artifact}/model.safetensors").headers["etag"]
    for known in (etag, f'"x", W/{etag}', "*"):
        response = api.get(f"{artifact}/model.safetensors", headers={"If-None-Match": known})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
    assert api.get(f"{artifact}/model.safetensors", headers={"If-None-Match": '"x"'}).status_code == 200


def test_a_range_of_another_version_gets_the_whole(api: TestClient, artifact: str) -> None:
    etag = api.get(f"{artifact}/model.safetensors").headers["etag"]
    for known, status in ((etag, 206), ('"x"', 200), (f"W/{etag}", 200)):
        headers = {"Range": "bytes=0-9", "If-Range": known}
        assert api.get(f"{artifact}/model.safetensors", headers=headers).status_code == status


@pytest.mark.parametrize("path", ["nothing", "../../../home/api-key", "%2e%2e/%2e%2e/x", "original", "/etc/passwd", ""])
def test_what_is_not_listed_is_not_found(api: TestClient, artifact: str, path: str) -> None:
    assert api.get(f"{artifact}/{path}").status_code == 404
