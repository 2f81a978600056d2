"""A job with a latency target: what the supervisor makes of what the runner searched for and measured."""

from typing import Any

import pytest

from tests.worker.conftest import Queue, StartWorker


@pytest.fixture
def body(job_body: dict[str, Any]) -> dict[str, Any]:
    return job_body | {"method": "llm-pruner", "sparsity": None, "target": {"latency_ratio": 0.7}}


@pytest.mark.parametrize(("latency", "end"), [(0.72, "succeeded"), (0.75, "failed")])
def test_the_latency_measured_at_the_end_decides_within_its_spread(
    latency: float, end: str, jobs: Queue, body: dict[str, Any], start_worker: StartWorker
) -> None:
    job_id = jobs.submit(body)
    assert start_worker(latency=latency).result() == end
    job, report = jobs.job(job_id), jobs.report(job_id)
    assert job.metrics is not None and job.sparsity is None
    figures = {"kind": "latency_ratio", "asked": 0.7, "reached": latency, "spread": 0.05, "sparsity": 0.25}
    assert job.metrics["target"] == figures | {"met": end == "succeeded"}
    assert report["target"]["search"]["steps"] == [{"sparsity": 0.25, "ratio": 0.7}]
    assert report["told"] == 0.25 and report["recipe"]["sparsity"] is None
    assert report["recipe"]["target"] == {"latency_ratio": 0.7}
    assert "model.safetensors" in jobs.artifact_names(job_id), "kept, as where any gate is missed"
    if end == "failed":
        assert job.error is not None and (job.error.code, job.error.param) == ("gate_missed", "target.latency_ratio")
        assert "0.7 was asked for" in job.error.message and "reached 0.75" in job.error.message


@pytest.mark.parametrize(("task", "code"), [("search", "latency_too_noisy"), ("measure", "out_of_memory")])
def test_a_latency_that_cannot_be_told_fails_the_job_once_and_stores_nothing(
    task: str, code: str, jobs: Queue, body: dict[str, Any], start_worker: StartWorker
) -> None:
    job_id = jobs.submit(body)
    assert start_worker(fail_in=task, code=code, retryable=False).result() == "failed"
    job = jobs.job(job_id)
    assert job.error is not None and (job.error.code, job.attempt) == (code, 1)
    assert jobs.artifact_names(job_id) == set()
