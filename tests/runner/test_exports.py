"""A job whose artifact runs in llama.cpp too, as its report and its card say."""

from typing import Any

import pytest
from gguf import GGUFReader

from core.database import transaction
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.jobs.resolution.model import resolve_model
from core.service.registry.schemas import DatasetBody, ModelBody
from core.service.registry.service import register_dataset, register_model
from core.service.sources.references import StoredModel
from tests.gguf.trained import LINES, save_trained
from tests.runner.conftest import Finish, Work, artifact
from tests.runner.models import write_model
from tests.worker.conftest import Queue


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    folder = save_trained(jobs.settings.models_root / "trained")
    words = write_model(jobs.settings.models_root / "words", 1)
    text = jobs.settings.datasets_root / "lines.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("\n\n".join(line for line in LINES if line.strip()))
    with transaction(jobs.sessions) as session:
        for name, path in (("trained", folder), ("words", words)):
            register_model(session, jobs.team, ModelBody(name=name, path=str(path.resolve())), jobs.settings)
        register_dataset(session, jobs.team, DatasetBody(name="lines", path=str(text.resolve())), jobs.settings)
    return {
        "model": "trained",
        "method": "magnitude",
        "sparsity": 0.3,
        "evaluation": {"datasets": ["lines"], "samples": 4, "sequence_length": 64},
        "gates": {"max_export_kl": 0.01},
        "output": {"format": "packed", "exports": [{"format": "gguf", "types": ["Q8_0"]}]},
    }


def test_a_job_leaves_gguf_files_beside_its_packed_weights(jobs: Queue, body: dict[str, Any], finish: Finish) -> None:
    job_id = finish(body)
    job, report, folder = jobs.job(job_id), jobs.report(job_id), artifact(jobs, job_id)
    assert job.metrics is not None
    exports = job.metrics["exports"]
    assert [each["file"] for each in exports] == ["model-Q8_0.gguf"]
    assert sorted(file.name for file in folder.glob("*.gguf")) == sorted(each["file"] for each in exports)
    assert all(each["bytes"] == (folder / each["file"]).stat().st_size for each in exports)
    assert exports[0]["kl"] < 0.01 and exports[0]["top_1"] > 0.9
    (row,) = report["gates"]["rows"]
    assert (row["on"], row["figure"], row["kept"]) == ("model-Q8_0.gguf", exports[0]["kl"], True)
    weights = {each.name: each.data for each in GGUFReader(folder / "model-Q8_0.gguf").tensors}
    assert (weights["output_norm.weight"] != 0).all() and (weights["blk.0.attn_q.weight"] == 0).mean() > 0.2
    assert report["versions"]["gguf"].startswith("llama.cpp of llama-cpp-py-sync")
    card = (folder / "README.md").read_text()
    assert (
        "llama-cli --model model-Q8_0.gguf" in card
        and f"| bytes of model-Q8_0.gguf | | {exports[0]['bytes']:,}" in card
    )
    with transaction(jobs.sessions) as session:
        reference = resolve_model(session, jobs.team, f"job:{job_id}", jobs.store, HubFindings()).reference
    assert isinstance(reference, StoredModel) and not [each for each in reference.files if "gguf" in each.path]
    assert list(folder.glob("*.packed*")), "weights are packed once the files are written"


def test_what_the_worker_finds_in_the_files_ends_a_job_before_it_prunes(
    jobs: Queue, body: dict[str, Any], work: Work
) -> None:
    job_id = jobs.submit(
        body | {"model": "words", "gates": {}, "output": {"exports": [{"format": "gguf", "types": ["F16"]}]}}
    )
    assert work().result(60) == "failed"
    job = jobs.job(job_id)
    assert job.error is not None and job.error.code == "invalid_request" and job.error.param == "output.exports"
    assert "tokenizer is of kind 'WordLevel'" in job.error.message and job.metrics is None
