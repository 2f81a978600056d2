"""The dense model is measured by one job; those that are told of it measure only their own, to the same figures."""

from typing import Any

import pytest

from core.database import transaction
from core.pipeline.reports.dense_figures import KnownDenseFigures
from core.pipeline.reports.report import Report
from core.service.jobs import service
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.schemas import JobBody
from tests.runner.conftest import Finish, Work
from tests.runner.models import register_layers
from tests.task_questions import write_questions
from tests.worker.conftest import Queue


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    write_questions(jobs.settings.local_tasks, "winogrande", 8)
    body = register_layers(jobs.sessions, jobs.settings, jobs.team, layers=2)
    return {**body, "evaluation": {**body["evaluation"], "tasks": ["winogrande"], "task_limit": 4}}


def dense_evaluations(jobs: Queue, job_id: str) -> int:
    """How often the runner told of a measurement of the dense model."""
    return sum(event.data.get("name") == "dense_evaluation" for event in jobs.events(job_id))


@pytest.fixture(scope="module")
def alone(jobs: Queue, body: dict[str, Any], finish: Finish) -> str:
    return finish(body)


def told(jobs: Queue, work: Work, body: dict[str, Any], baseline: KnownDenseFigures) -> str:
    """A finished job that was told of `baseline`."""
    with transaction(jobs.sessions) as session:
        parsed = JobBody.model_validate(body)
        context = RequestContext(session, jobs.team, jobs.store, jobs.settings)
        job = service.submit(context, parsed, baseline=baseline)
    assert work().result(120) == "succeeded", jobs.job(job.id).error
    return job.id


def test_figures_of_a_job_that_was_told_equal_those_of_one_that_measured(
    jobs: Queue, work: Work, body: dict[str, Any], alone: str
) -> None:
    told_id = told(
        jobs, work, body, KnownDenseFigures(figures=tuple(Report.model_validate(jobs.report(alone)).dense_figures))
    )
    before, after = jobs.job(alone).metrics or {}, jobs.job(told_id).metrics or {}
    for name in ("perplexity", "tasks", "task_mean", "sparsity", "parameters"):
        assert after[name] == before[name]
    report = jobs.report(told_id)
    assert report["dense"]["measured"] == dense_evaluations(jobs, told_id) == 0
    assert report["dense"]["taken"] == 2
    assert {figure["job"] for figure in report["dense"]["figures"]} == {alone}
    assert any(f"measured by job {alone}" in note for note in report["notes"])
    assert jobs.report(alone)["dense"]["measured"] == 2 and dense_evaluations(jobs, alone) == 1


def test_figures_of_another_measurement_are_not_used(jobs: Queue, work: Work, body: dict[str, Any], alone: str) -> None:
    figures = [each for each in Report.model_validate(jobs.report(alone)).dense_figures if each.kind == "perplexity"]
    facts = {
        "samples": 1,
        "model": "sha256:0",
        "device": "cuda",
        "dtype": "bfloat16",
        "sequence_length": 7,
        "dataset": "0",
    }
    wrong = [
        each.model_copy(update={"facts": each.facts | {fact: other}, "values": {"perplexity": 1.0}})
        for each in figures
        for fact, other in facts.items()
    ]
    without_tasks = body | {"evaluation": {**body["evaluation"], "tasks": []}}
    job_id = told(jobs, work, without_tasks, KnownDenseFigures(figures=tuple(wrong)))
    assert (jobs.job(job_id).metrics or {})["perplexity"] == (jobs.job(alone).metrics or {})["perplexity"]
    assert dense_evaluations(jobs, job_id) == jobs.report(job_id)["dense"]["measured"] == 1
