"""Sensitivity jobs with the real runner: figures, chart and card; a later job's rates; and what is refused."""

import json
from typing import Any

import pytest

from secateur_wire.errors import InvalidRequest
from tests.runner.conftest import Finish, Work, artifact
from tests.runner.models import register_layers
from tests.worker.conftest import Queue


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    layered = register_layers(jobs.sessions, jobs.settings, jobs.team, layers=3)
    return {"model": "layered", "method": "sensitivity", "calibration": layered["calibration"]}


def refused(jobs: Queue, body: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        jobs.submit(body)
    return caught.value


def test_it_leaves_figures_and_a_chart_from_which_a_later_job_takes_its_rates(
    jobs: Queue, body: dict[str, Any], work: Work, finish: Finish
) -> None:
    job_id = jobs.submit(body | {"parameters": {"method": "wanda", "rates": [0.3, 0.6, 0.9]}})
    named = f"job:{job_id}"
    pruning = {**body, "method": "wanda", "sparsity": 0.5, "parameters": {"allocation": named}}
    early = refused(jobs, pruning)
    assert early.param == "parameters.allocation" and "queued" in early.message
    assert work().result(120) == "succeeded", jobs.job(job_id).error
    job, report = jobs.job(job_id), jobs.report(job_id)
    assert job.sparsity is None and job.evaluation.datasets == ["words"]
    curves = report["sensitivity"]["curves"]
    assert [curve["name"] for curve in curves] == [f"model.layers.{layer}" for layer in range(3)]
    assert all([point["rate"] for point in curve["points"]] == [0.3, 0.6, 0.9] for curve in curves)
    assert job.metrics is not None and job.metrics["sensitivity"]["layers"] == 3
    assert any("no model was made" in note for note in report["notes"])
    assert jobs.artifact_names(job_id) == {"README.md", "secateur.json", "sensitivity.json", "sensitivity.svg"}
    folder = artifact(jobs, job_id)
    written = json.loads((folder / "sensitivity.json").read_text())
    assert [curve["points"][0]["loss"] for curve in written["curves"]] == [c["points"][0]["loss"] for c in curves]

    no_model = refused(jobs, body | {"model": named, "parameters": {}})
    assert no_model.param == "model" and "made no model" in no_model.message
    too_much = refused(jobs, pruning | {"sparsity": 0.95})
    assert too_much.param == "sparsity" and "0.9" in too_much.message
    with_target = refused(jobs, pruning | {"sparsity": None, "target": {"parameters": 20_000}})
    assert with_target.param == "target"

    pruned = finish(pruning)
    job, report = jobs.job(pruned), jobs.report(pruned)
    rates = job.parameters["allocation"]
    assert len(rates) == 3 and sum(rates) / 3 == pytest.approx(0.5, abs=1e-12) and len(set(rates)) == 3
    assert job.metadata == {"allocation_job": named}
    assert report["layer_sparsities"] == rates
    again = jobs.submit(report["recipe"])
    assert jobs.job(again).parameters == job.parameters, "the recipe needs the sensitivity job no more"


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        (
            {"calibration": None, "evaluation": {"datasets": ["words"]}, "parameters": {"method": "wanda"}},
            "calibration",
            "wanda measures activations",
        ),
        ({"gates": {"max_perplexity_ratio": 2}}, "gates", "makes no model"),
        ({"sparsity": 0.5}, "sparsity", "prunes nothing"),
        ({"method": "magnitude", "sparsity": 0.5, "parameters": {"allocation": "job:none"}}, "parameters.allocation",
         "no job 'none'"),
    ],
)  # fmt: skip
def test_what_a_measuring_job_cannot_have_is_refused_by_name(
    jobs: Queue, body: dict[str, Any], change: dict[str, Any], param: str, words: str
) -> None:
    error = refused(jobs, body | change)
    assert error.param == param and words in error.message
