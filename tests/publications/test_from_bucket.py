"""The operator's store is a bucket: artifacts go from there to the hub, and to another bucket, in pieces."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from s3fs import S3FileSystem

from core.settings import Settings
from tests.publications.conftest import FILES, Publish
from tests.publications.pushable_hub import PushedHub
from tests.stores.conftest import BUCKET

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's own client


@pytest.fixture
def settings(settings: Settings, s3_endpoint: str, s3_service: S3FileSystem) -> Settings:
    store = {
        "store_url": f"s3://{BUCKET}/store-{uuid.uuid4().hex}",
        "store_endpoint": s3_endpoint,
        "store_region": "us-east-1",
        "store_access_key": "key",
        "store_secret_key": Settings(store_secret_key="secret").store_secret_key,
    }
    return settings.model_copy(update=store)


def test_from_a_bucket_to_the_hub_and_to_another_bucket(
    publish: Publish,
    carry_out: Callable[[str], dict[str, Any]],
    hub: PushedHub,
    s3_service: S3FileSystem,
    s3_endpoint: str,
) -> None:
    done = carry_out(publish()["id"])
    assert done["status"] == "succeeded", done["error"]
    assert {path: data for path, data in hub.files("acme/pruned").items() if path in FILES} == FILES
    keys = {"access_key": "AKIAUSER", "secret_key": "secret", "region": "us-east-1", "endpoint": s3_endpoint}
    done = carry_out(publish(to=f"s3://{BUCKET}/copied", token=None, **keys)["id"])
    assert done["status"] == "succeeded", done["error"]
    found = {path.removeprefix(f"{BUCKET}/copied/"): path for path in s3_service.find(f"{BUCKET}/copied")}
    assert {name: s3_service.cat_file(path) for name, path in found.items()} == FILES
