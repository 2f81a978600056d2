"""The gate before an S3 store: what each mood shows to a client of S3, and that none of it reaches what is stored."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from bench.chaos import gate as gates
from bench.chaos.gate import Gate
from bench.chaos.wires import Network

BODY = bytes(range(256)) * 400


@pytest.fixture(scope="module")
def store_port() -> Iterator[int]:
    from moto.server import ThreadedMotoServer  # slow to import

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def gate(store_port: int) -> Iterator[Gate]:
    with Network() as network:
        yield Gate(network, store_port)


@pytest.fixture
def s3(gate: Gate) -> Iterator[Any]:
    """A client that tries once."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{gate.port}",
        region_name="us-east-1",
        aws_access_key_id="access",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
    )
    client.create_bucket(Bucket="bucket")
    yield client
    gate.turn("well")
    client.close()


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


def test_every_request_is_answered_with_an_internal_error(s3: Any, gate: Gate) -> None:
    s3.put_object(Bucket="bucket", Key="key", Body=b"before")
    gate.turn("error500")
    for ask in (lambda: s3.put_object(Bucket="bucket", Key="key", Body=BODY), lambda: stored(s3)):
        with pytest.raises(ClientError, match="InternalError"):
            ask()
    with pytest.raises(ClientError, match="500"):
        s3.head_object(Bucket="bucket", Key="key")
    gate.turn("well")
    assert stored(s3) == b"before"


def test_half_of_an_answer_and_half_of_an_upload(s3: Any, gate: Gate) -> None:
    s3.put_object(Bucket="bucket", Key="key", Body=BODY)
    gate.turn("half_body")
    with pytest.raises((BotoCoreError, HTTPClientError), match=r"IncompleteRead|Connection"):
        stored(s3)
    with pytest.raises(BotoCoreError):
        s3.put_object(Bucket="bucket", Key="key", Body=b"other" * 1000)
    gate.turn("well")
    assert stored(s3) == BODY


def test_a_slow_store_keeps_a_client_waiting_that_has_less_patience(
    s3: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket="bucket", Key="key", Body=b"before")
    monkeypatch.setattr(gates, "SLOW_SECONDS", 2.0)
    hurried = boto3.client(
        "s3",
        endpoint_url=s3.meta.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="access",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=0.5),
    )
    gate.turn("slow")
    with pytest.raises(BotoCoreError, match="timeout"):
        hurried.get_object(Bucket="bucket", Key="key")
    assert stored(s3) == b"before"
    hurried.close()
