"""The comparison of an artifact with the best dense file of no more bytes, by real jobs on a model that has learnt."""

from typing import Any

import pytest

from core.database import transaction
from core.engine.exporters.probe_lines import varied_lines
from core.service.jobs.alternatives import job_with_measured
from core.service.registry.schemas import DatasetBody, ModelBody
from core.service.registry.service import read_dataset, read_model, register_dataset, register_model
from secateur_wire.equal_bytes import EqualBytes
from tests.gguf.trained import save_trained
from tests.runner.conftest import Finish, Work, artifact
from tests.worker.conftest import Queue

TEXTS = {"lines": 5, "others": 6}
LENGTH = 64


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    folder = save_trained(jobs.settings.models_root / "trained")
    with transaction(jobs.sessions) as session:
        register_model(
            session, jobs.team, read_model(ModelBody(name="trained", path=str(folder.resolve())), jobs.settings)
        )
        for name, seed in TEXTS.items():
            text = jobs.settings.datasets_root / f"{name}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text("\n\n".join(line for line in varied_lines(900, seed)[300:] if line.strip()))
            register_dataset(
                session, jobs.team, read_dataset(DatasetBody(name=name, path=str(text.resolve())), jobs.settings)
            )
    return {
        "model": "trained",
        "method": "magnitude",
        "sparsity": 0.6,
        "evaluation": {"datasets": list(TEXTS), "samples": 12, "sequence_length": LENGTH},
        "output": {"format": "packed"},
    }


def newest(jobs: Queue, job_id: str) -> dict[str, EqualBytes]:
    """The comparisons of a job with what was measured since it ended."""
    with transaction(jobs.sessions) as session:
        return job_with_measured(session, jobs.team, jobs.job(job_id)).measured.equal_bytes


def test_a_pruned_model_is_worse_than_a_dense_file_of_fewer_bytes_once_that_was_measured(
    jobs: Queue, body: dict[str, Any], finish: Finish, work: Work
) -> None:
    first = finish(body)
    before = jobs.job(first).measured.equal_bytes
    assert before.keys() == TEXTS.keys() and all(each.outcome is None for each in before.values())
    assert "no dense file of at most" in (before["lines"].reason or "")
    assert "At equal bytes: on lines unknown" in (artifact(jobs, first) / "README.md").read_text()
    measure = before["lines"].measure
    assert measure is not None and measure["output"] == {"exports": [{"format": "gguf", "types": ["Q8_0", "Q4_K_M"]}]}

    stored = finish(measure)
    losses = jobs.report(stored)["window_losses"]
    assert losses.keys() == {"artifact", "model-Q8_0.gguf", "model-Q4_K_M.gguf"}
    in_llama_cpp, in_torch = (losses[file]["lines"]["losses"] for file in ("model-Q8_0.gguf", "artifact"))
    assert in_llama_cpp == pytest.approx(in_torch, abs=0.02) and in_llama_cpp != in_torch
    for each in newest(jobs, first).values():
        assert each.outcome == "worse" and each.basis == f"measured by {stored}" and each.windows == 12
        assert each.dense_bytes is not None and each.bytes is not None and each.dense_bytes <= each.bytes
        assert each.difference is not None and each.stderr is not None and each.difference > 3 * each.stderr > 0

    second = jobs.submit(body | {"gates": {"beats_dense_at_equal_bytes": True}})
    assert work().result(120) == "failed"
    job, report = jobs.job(second), jobs.report(second)
    assert job.error is not None and job.error.param == "gates.beats_dense_at_equal_bytes"
    assert all(not row["kept"] and 0 < row["limit"] < row["figure"] for row in report["gates"]["rows"])
    assert job.measured.equal_bytes == newest(jobs, first)
    assert report["equal_bytes"]["lines"]["outcome"] == "worse"
    assert job.verdict is not None and "worse than the dense model as gguf" in job.verdict.words
    assert "worse than the dense model as gguf" in (artifact(jobs, second) / "README.md").read_text()
