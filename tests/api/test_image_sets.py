"""Image sets through the API: registered in place, uploaded, and refused where text is needed and the reverse."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.resolution.classifier import ImageNeeds
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.dataset import resolve_dataset
from core.service.sources.folders import content_hash
from core.service.sources.references import FileImages, ImageReference, StoredImages, data_references, image_references
from core.settings import Settings
from core.storage import Store
from secateur_wire.errors import InvalidRequest, SecateurError, TooFewImages, UnknownDataset, UnusableDataset
from tests.api.uploading import announced, send_rest, start
from tests.image_sets import grays, write_folder, write_parquet


def register(api: TestClient, path: Path, name: str = "shades", **more: str) -> tuple[int, dict[str, Any]]:
    response = api.post("/v1/datasets", json={"name": name, "path": str(path.absolute()), **more})
    return response.status_code, response.json()


def test_a_folder_of_images_is_registered(api: TestClient, settings: Settings, tmp_path: Path) -> None:
    folder = write_folder(settings.datasets_root / "shades", grays(6), ["dark", "light"])
    status, dataset = register(api, folder)
    assert (status, dataset["format"], dataset["images"], dataset["classes"]) == (201, "image_folder", 6, 2)
    assert f"sha256:{dataset['sha256']}" == content_hash(folder) and dataset["documents"] == 0
    assert register(api, folder)[0] == 200
    (folder / "dark" / "more.png").write_bytes(grays(1)[0])
    status, problem = register(api, folder)
    assert (status, problem["code"], problem["param"]) == (409, "conflict", "name")
    (tmp_path / "secret.png").write_bytes(grays(1)[0])
    (folder / "light" / "link.png").symlink_to(tmp_path / "secret.png")
    assert register(api, folder, "linked")[1]["code"] == "path_escapes"
    assert api.delete("/v1/datasets/shades").status_code == 204 and folder.exists()


def test_columns_of_images_and_labels_can_be_named(api: TestClient, settings: Settings) -> None:
    file = write_parquet(settings.datasets_root / "a.parquet", grays(4), [0, 1, 2, 0], image="img", label="y")
    status, problem = register(api, file, format="image_parquet")
    assert (status, problem["code"], problem["param"]) == (422, "unusable_dataset", "image_field")
    named = {"format": "image_parquet", "image_field": "img", "label_field": "y"}
    status, dataset = register(api, file, **named)
    assert (status, dataset["images"], dataset["classes"]) == (201, 4, 3)
    assert (dataset["image_field"], dataset["label_field"]) == ("img", "y")


def test_corrupt_images_are_named(api: TestClient, settings: Settings) -> None:
    folder = write_folder(settings.datasets_root / "broken", [*grays(3), b"no image"], ["a"])
    status, problem = register(api, folder)
    assert (status, problem["code"]) == (422, "unusable_dataset")
    assert "1 of 4 images cannot be read: a/0003.png" in problem["detail"]


def test_images_are_uploaded_as_parquet(api: TestClient, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "sent" / "a.parquet", grays(5), ["on", "off", "on", "on", "off"])
    body = announced(file.parent, name="switches", kind="dataset")
    refused = api.post("/v1/uploads", json=body | {"format": "image_folder"})
    assert (refused.status_code, refused.json()["code"]) == (422, "upload_refused")
    assert "to_parquet" in refused.json()["detail"]
    upload = start(api, body | {"format": "image_parquet"})
    send_rest(api, upload, file.parent)
    completed = api.post(f"/v1/uploads/{upload['id']}/complete")
    assert completed.status_code == 201, completed.text
    dataset = completed.json()
    assert (dataset["images"], dataset["classes"], dataset["label_field"]) == (5, 2, "label")
    assert dataset["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert api.post("/v1/uploads", json=body | {"format": "image_parquet"}).json()["status"] == "complete"


@pytest.fixture
def resolve(sessions: sessionmaker[Session], team: str, store: Store, settings: Settings) -> Any:
    def resolved(name: str, *, samples: int | None = None, classes: int = 10) -> ImageReference:
        needs = ImageNeeds("calibration", "calibration.dataset", samples, classes)
        with transaction(sessions) as session:
            return resolve_dataset(RequestContext(session, team, store, settings), name, needs)

    return resolved


def test_names_mean_images_only_where_images_are_needed(
    api: TestClient, settings: Settings, resolve: Any, job_body: dict[str, Any], dataset: str, tmp_path: Path
) -> None:
    folder = write_folder(settings.datasets_root / "shades", grays(6), ["a", "b", "c"])
    register(api, folder)
    file = write_parquet(tmp_path / "sent" / "a.parquet", grays(5), [0, 1, 0, 0, 0])
    upload = start(api, announced(file.parent, name="switches", kind="dataset", format="image_parquet"))
    send_rest(api, upload, file.parent)
    api.post(f"/v1/uploads/{upload['id']}/complete").raise_for_status()

    there, stored = resolve("shades", samples=6), resolve("switches")
    assert isinstance(there, FileImages) and there.path == folder.resolve() and there.format == "image_folder"
    assert isinstance(stored, StoredImages) and stored.file.path == "a.parquet"
    for reference in (there, stored):
        written = reference.model_dump(mode="json")
        assert image_references.validate_python(written) == data_references.validate_python(written) == reference
    refusals: list[tuple[str, dict[str, Any], type[SecateurError], str]] = [
        (dataset, {}, UnusableDataset, "has text"),
        ("self", {}, UnusableDataset, "a language model writes"),
        ("shades", {"classes": 2}, UnusableDataset, "3 classes, but the model has 2"),
        ("shades", {"samples": 7}, TooFewImages, "needs 7 images, but 'shades' has 6"),
        ("nothing", {}, UnknownDataset, "registered image sets: shades, switches"),
    ]
    for name, needs, error, words in refusals:
        with pytest.raises(error, match=words) as caught:
            resolve(name, **needs)
        assert isinstance(caught.value, InvalidRequest | UnusableDataset)
        assert str(caught.value.param).startswith("calibration.")
    asked = job_body | {"calibration": {"dataset": "shades", "samples": 2, "sequence_length": 16}}
    response = api.post("/v1/jobs", json=asked)
    assert (response.status_code, response.json()["code"]) == (422, "unusable_dataset"), response.text
    assert response.json()["param"] == "calibration.dataset" and "has images" in response.json()["detail"]
