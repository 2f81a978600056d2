"""The client against the real API and database."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.settings import Settings
from secateur import Client, errors
from tests.model_folders import write_llama


@pytest.fixture
def service(live_api: httpx.Client) -> Iterator[Client]:
    key = live_api.headers["Authorization"].removeprefix("Bearer ")
    with Client(str(live_api.base_url), key) as client:
        yield client


def test_the_catalogue_and_the_registry(service: Client, settings: Settings, model: str, dataset: str) -> None:
    methods = {method.id: method for method in service.methods()}
    assert methods["wanda"].needs.calibration and "unstructured" in methods["wanda"].patterns
    assert [each.name for each in service.models()] == [model]
    assert [each.name for each in service.datasets()] == [dataset]
    added = service.add_model("another", str(write_llama(settings.models_root / "another").resolve()), source="tests")
    assert {each.name for each in service.models()} == {model, "another"} and added.source == "tests"
    file = next(settings.datasets_root.resolve().iterdir())
    assert service.add_dataset("same", str(file), format="text").characters > 0


def test_a_look_and_a_dry_run(service: Client, job_body: dict[str, Any]) -> None:
    look = service.inspect(job_body["model"])
    assert look.job is None and {fit.method: fit.fits for fit in look.methods}["wanda"]
    tried = service.inspect(**job_body)
    assert tried.job is not None and tried.job["sparsity"] == 0.5
    assert tried.estimate is not None and tried.estimate.peak_memory_bytes > 0
    with pytest.raises(errors.InvalidRequest) as caught:
        service.inspect(**{**job_body, "sparsity": 1.5})
    assert (caught.value.code, caught.value.param) == ("invalid_sparsity", "sparsity")


def test_what_is_no_object_is_told_what_is_expected_and_the_option_that_says_it(
    service: Client, job_body: dict[str, Any]
) -> None:
    for call in (service.submit, service.inspect):
        with pytest.raises(errors.InvalidRequest) as caught:
            call(**{**job_body, "calibration": "x"})
        assert str(caught.value).startswith('calibration: expected an object such as {"dataset": "x"} with dataset')
        assert str(caught.value).endswith("(`secateur submit`: --calibration NAME)")


def test_a_job_is_submitted_once_listed_cancelled_and_followed(service: Client, job_body: dict[str, Any]) -> None:
    submitted = service.submit(idempotency_key="once", **job_body)
    assert service.submit(idempotency_key="once", **job_body).id == submitted.id
    other = service.submit(**{**job_body, "metadata": {"commit": "def"}})
    assert [job.id for job in service.jobs()] == [other.id, submitted.id]
    assert [job.id for job in islice(service.jobs(status="queued", metadata={"commit": "abc"}), 5)] == [submitted.id]
    with pytest.raises(errors.DownloadError, match="queued"):
        service.download(submitted.id, Path("unused"))
    with pytest.raises(errors.NotFound):
        service.report(submitted.id)
    assert service.cancel(submitted.id).status == "cancelled"
    assert service.wait(submitted.id).finished
    assert [event.data["status"] for event in service.events(submitted.id)] == ["queued", "cancelled"]
    assert service.retry(submitted.id).status == "queued"
    service.cancel(submitted.id)
    told = [event.data["status"] for event in service.events(submitted.id, after=1)]
    assert told == ["cancelled", "queued", "cancelled"]
