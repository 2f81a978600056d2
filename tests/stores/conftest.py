"""Stores of both kinds: a folder, and buckets of an S3-speaking server on loopback."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from core.settings import Settings
from core.storage import Store, open_store

BUCKET = "secateur"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer  # slow to import, and few tests need it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_service(s3_endpoint: str) -> S3FileSystem:
    """The service as its administrator sees it."""
    service = S3FileSystem(
        key="key",
        secret="secret",
        endpoint_url=s3_endpoint,
        use_listings_cache=False,
        client_kwargs={"region_name": "us-east-1"},
    )
    service.call_s3("create_bucket", Bucket=BUCKET)
    return service


@pytest.fixture
def s3_settings(s3_endpoint: str, s3_service: S3FileSystem, tmp_path: Path) -> Settings:
    """Of a store below a prefix of this test's own. No database."""
    return Settings(
        home=tmp_path / "home",
        store_url=f"s3://{BUCKET}/production-{uuid.uuid4().hex}",
        store_endpoint=s3_endpoint,
        store_region="us-east-1",
        store_access_key="key",
        store_secret_key="secret",
    )


@pytest.fixture(params=["folder", "s3"])
def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Of each kind of store in turn."""
    if request.param == "folder":
        return Settings(home=tmp_path / "home")
    return request.getfixturevalue("s3_settings")


@pytest.fixture
def store(store_settings: Settings) -> Store:
    return open_store(store_settings)


def write_artifact(folder: Path, **files: bytes) -> Path:
    """A finished artifact; `a__b_c` becomes a/b.c."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        file = folder / name.replace("__", "/").replace("_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (folder / "secateur.json").write_text(json.dumps({"files": len(files)}))
    return folder
