"""The bodies that the methods' pages show are jobs that the service takes."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.methods.registry import METHODS
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.settings import Settings
from documentation.methods import bodies
from tests.engine.classifier_folders import make_classifier
from tests.engine.pruning.test_experts import PER_EXPERT, opened
from tests.image_sets import grays, write_folder


@pytest.fixture
def names(api: TestClient, model: str, dataset: str, settings: Settings) -> dict[str, str]:
    """Registered models and data, by the names that stand for them on the pages."""
    classifier = make_classifier(settings.models_root / "lenet", "lenet-5", classes=10).absolute()
    api.post("/v1/models", json={"name": "lenet", "path": str(classifier)}).raise_for_status()
    images = write_folder(settings.datasets_root / "grays", grays(400, (28, 28)), [str(each) for each in range(10)])
    api.post("/v1/datasets", json={"name": "grays", "path": str(images.absolute())}).raise_for_status()
    return {"my-model": model, "my-text": dataset, "my-classifier": "lenet", "my-images": "grays"}


def test_every_body_to_copy_is_a_job(api: TestClient, names: dict[str, str]) -> None:
    refused = {}
    for method in METHODS.values():
        for shown in bodies(method):
            if shown["model"] not in names:
                continue
            body: dict[str, Any] = shown | {"model": names[shown["model"]]}
            for part in {"calibration", "recovery"} & body.keys():
                body[part] = body[part] | {"dataset": names[body[part]["dataset"]]}
            if "evaluation" in shown:
                body["evaluation"] = {"datasets": [names[each] for each in shown["evaluation"]["datasets"]]}
            answer = api.post("/v1/models/inspect", json=body)
            if answer.is_error:
                refused[method.id, shown["model"], shown.get("pattern")] = answer.json()["detail"]
    assert not refused


def test_the_body_for_a_mixture_is_a_job_too() -> None:
    (body,) = (each for method in METHODS.values() for each in bodies(method) if each["model"] == "my-mixture")
    resolve_request(
        opened(PER_EXPERT).description, UnresolvedRequest(body["method"], body["pattern"], body["sparsity"])
    )
