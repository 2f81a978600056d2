"""The store that fails: what each mood shows to a client of S3, and that none of it reaches what is stored."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from bench.chaos import store as stores
from bench.chaos.store import store_server

BODY = bytes(range(256)) * 400


@pytest.fixture
def mood(tmp_path: Path) -> Path:
    file = tmp_path / "mood"
    file.write_text("well")
    return file


@pytest.fixture
def endpoint(mood: Path) -> Iterator[str]:
    with store_server(0, mood) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def client(endpoint: str, patience: float = 20) -> Any:
    """Return a client that tries once."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="access",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=patience),
    )


@pytest.fixture
def s3(endpoint: str, mood: Path) -> Iterator[Any]:
    patient = client(endpoint)
    patient.create_bucket(Bucket="bucket")
    yield patient
    patient.close()


def stored(s3: Any) -> bytes:
    return bytes(s3.get_object(Bucket="bucket", Key="key")["Body"].read())


def test_all_passes_unchanged(s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="key", Body=BODY)
    assert stored(s3) == BODY
    assert s3.head_object(Bucket="bucket", Key="key")["ContentLength"] == len(BODY)
    assert s3.get_object(Bucket="bucket", Key="key", Range="bytes=10-19")["Body"].read() == BODY[10:20]
    s3.delete_object(Bucket="bucket", Key="key")
    with pytest.raises(ClientError, match="NoSuchKey"):
        stored(s3)


def test_every_request_is_answered_with_an_internal_error(s3: Any, mood: Path) -> None:
    s3.put_object(Bucket="bucket", Key="key", Body=b"before")
    mood.write_text("error500")
    for ask in (lambda: s3.put_object(Bucket="bucket", Key="key", Body=BODY), lambda: stored(s3)):
        with pytest.raises(ClientError, match="InternalError"):
            ask()
    with pytest.raises(ClientError, match="500"):
        s3.head_object(Bucket="bucket", Key="key")
    mood.write_text("well")
    assert stored(s3) == b"before"


def test_half_of_an_answer_and_half_of_an_upload(s3: Any, mood: Path) -> None:
    s3.put_object(Bucket="bucket", Key="key", Body=BODY)
    mood.write_text("half_body")
    with pytest.raises((BotoCoreError, HTTPClientError), match=r"IncompleteRead|Connection"):
        stored(s3)
    with pytest.raises(BotoCoreError):
        s3.put_object(Bucket="bucket", Key="key", Body=b"other" * 1000)
    mood.write_text("well")
    assert stored(s3) == BODY


def test_a_slow_store_keeps_a_client_waiting_that_has_less_patience(
    s3: Any, mood: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket="bucket", Key="key", Body=b"before")
    monkeypatch.setattr(stores, "SLOW_SECONDS", 2.0)
    hurried = client(s3.meta.endpoint_url, 0.5)
    mood.write_text("slow")
    with pytest.raises(BotoCoreError, match="timeout"):
        hurried.get_object(Bucket="bucket", Key="key")
    assert stored(s3) == b"before"
    hurried.close()
