"""Both clients against the real service, over connections that break: nothing is made twice, nothing is lost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.settings import Settings
from secateur import Client, UploadProgress, errors
from tests.client.cutting_proxy import Cuts, cutting
from tests.model_folders import write_llama, write_text

PART = 4096


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"upload_part_bytes": PART, "requests_per_minute": 0})


@pytest.fixture
def cuts() -> Cuts:
    return Cuts()


@pytest.fixture
def service(live_api: httpx.Client, cuts: Cuts, admin_key: str) -> Iterator[Client]:
    assert live_api.base_url.port is not None
    with cutting(live_api.base_url.port, cuts) as url, Client(url, admin_key) as client:
        yield client


def test_a_submission_whose_answer_was_lost_makes_one_job(
    service: Client, cuts: Cuts, job_body: dict[str, Any]
) -> None:
    cuts.of_answers = [0, 40, 0]
    job = service.submit(**job_body)
    assert cuts.made == 3 and [each.id for each in service.jobs()] == [job.id]
    assert service.cancel(job.id).status == "cancelled"


def test_a_model_is_uploaded_over_a_connection_that_keeps_breaking(service: Client, cuts: Cuts, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "oak")
    (folder / "README.md").write_text("stays here")
    size = (folder / "model.safetensors").stat().st_size
    assert size > 3 * PART
    told: list[UploadProgress] = []
    cuts.of_requests = [100, 900, 3000, 5000, 6000, 7000]
    model = service.upload_model("oak", folder, source="tests", on_progress=told.append)
    assert cuts.made >= 5
    assert (model.name, model.source, model.architecture) == ("oak", "tests", "LlamaForCausalLM")
    assert service.model("oak").bytes <= size
    [upload] = service.uploads()
    assert upload.status == "complete" and {file.path for file in upload.files} == {"config.json", "model.safetensors"}
    sent = [each.done for each in told if (each.path, each.doing) == ("model.safetensors", "sending")]
    assert sent == sorted(sent) and sent[-1] == size
    assert max(each.done for each in told if each.doing == "hashing") == size


def test_an_upload_that_was_given_up_goes_on_where_it_stopped(service: Client, cuts: Cuts, tmp_path: Path) -> None:
    file = write_text(tmp_path / "my leaves.txt", words=6000)
    told: list[UploadProgress] = []

    def cut_in_the_middle(progress: UploadProgress) -> None:
        if progress.doing == "sending" and progress.done == 2 * PART:
            cuts.of_requests = [50] * 100
            cuts.break_open()

    with pytest.raises((errors.UploadInterrupted, errors.Unreachable)):
        service.upload_dataset("leaves", file, on_progress=cut_in_the_middle)
    cuts.of_requests = []
    [upload] = service.uploads()
    assert upload.status == "open" and upload.files[0].received == 2 * PART
    dataset = service.upload_dataset("leaves", file, on_progress=told.append)
    sending = [each.done for each in told if each.doing == "sending"]
    assert sending[0] == 2 * PART and dataset.bytes == file.stat().st_size
    assert service.dataset("leaves").documents == 600
    assert [each.id for each in service.uploads()] == [upload.id]


def test_a_deletion_whose_answer_was_lost_is_done(service: Client, cuts: Cuts, tmp_path: Path) -> None:
    service.upload_dataset("leaves", write_text(tmp_path / "leaves.txt"))
    service.upload_model("oak", write_llama(tmp_path / "oak"))
    cuts.of_answers = [0]
    service.delete_dataset("leaves")
    service.delete_model("oak")
    assert not list(service.datasets()) and not list(service.models())
    with pytest.raises(errors.NotFound):
        service.delete_model("oak")
