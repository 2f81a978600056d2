"""Image sets of the hub, as the fetcher brings them."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from core.engine.datasets.image_facts import describe_images
from core.pipeline.messages import ImageSource
from core.service.sources.hub import Hub
from core.service.sources.hub_datasets import find_hub_dataset
from core.service.sources.references import HubImages
from core.settings import Settings
from tests.image_sets import grays
from tests.sources.hub_server import HubState
from worker.supervisor.inputs import JobInputs

Fetch = Callable[..., ImageSource]


@pytest.fixture
def fetch(hub: HubState, sources: JobInputs) -> Fetch:
    """Fetches as a worker does what a name means to the API."""

    def bring(name: str) -> ImageSource:
        found = find_hub_dataset(Hub(Settings(hub_endpoint=hub.endpoint)), name, "calibration", "dataset")
        images = HubImages(
            name=name,
            repository=found.repository,
            revision=found.revision,
            config=found.config,
            split=found.split,
            use="calibration",
            bytes=found.bytes,
            is_public=found.is_public,
        )
        return sources.images(images, "calibration.dataset")

    return bring


def labelled(images: list[bytes], labels: list[int], image: str, label: str) -> bytes:
    """A Parquet file as the library puts it on the hub."""
    import datasets  # slow to load, and for this alone

    features = datasets.Features({image: datasets.Image(decode=False), label: datasets.ClassLabel(names=["no", "yes"])})
    rows = {image: [{"bytes": each, "path": None} for each in images], label: labels}
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(buffer)
    return buffer.getvalue()


def test_a_split_becomes_one_file_of_images_and_named_labels(fetch: Fetch, hub: HubState) -> None:
    shards = [labelled(grays(3), [0, 1, 1], "img", "fine_label"), labelled(grays(2), [1, 0], "img", "fine_label")]
    files = {f"data/train-{number:05d}-of-00002.parquet": shard for number, shard in enumerate(shards)}
    commit = hub.add("dataset", "org/answers").commit(files)
    images = fetch("org/answers")
    found = describe_images(Path(images.path), images.format, sha256=images.sha256)
    assert (found.images, found.class_names) == (5, ["no", "yes"])
    assert images.origin["revision"] == commit and images.origin["split"] == "train"
    hub.served.clear()
    assert fetch("org/answers") == images and not hub.served
