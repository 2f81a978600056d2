"""A sweep with the real runner on a tiny model: the dense model is evaluated by one job, and no figure changes."""

from typing import Any

import pytest

from core.service.jobs.schemas import Job
from tests.runner.conftest import Finish, Work
from tests.runner.models import register_layers
from tests.sweeps.conftest import Sweeps
from tests.worker.conftest import Queue


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    return register_layers(jobs.sessions, jobs.settings, jobs.team)


def figures(job: Job) -> dict[str, Any]:
    """What does not depend on how busy the machine was."""
    metrics = job.metrics or {}
    return {name: metrics[name] for name in ("perplexity", "sparsity", "parameters", "bytes")}


def test_the_dense_model_is_evaluated_once_and_figures_equal_those_of_a_job_alone(
    jobs: Queue, work: Work, finish: Finish, body: dict[str, Any]
) -> None:
    sweeps = Sweeps(jobs.sessions, jobs.settings, jobs.store, jobs.team)
    varied = {"method": ["magnitude", "sparsegpt"], "sparsity": [0.5]}
    job = {name: value for name, value in body.items() if name not in ("method", "sparsity")}
    sweep_id = sweeps.submit({"job": job, "grid": varied, "max_concurrent": 2})
    while sweeps.get(sweep_id).status == "running":
        assert sweeps.advance() <= 1, "the second waits for the dense figures, then runs"
        if sweeps.jobs("queued"):
            assert work().result(120) == "succeeded"
    results = sweeps.results(sweep_id)
    ids = [str(point.job) for point in results.points]
    told = [
        [event.data["value"] for event in jobs.events(each) if event.data.get("name") == "dense_evaluation"]
        for each in ids
    ]
    assert told == [[1.0], []], "one evaluation of the dense model in the whole sweep"
    first, second = (jobs.report(each)["dense"] for each in ids)
    assert (first["measured"], first["taken"]) == (1, 0) and (second["measured"], second["taken"]) == (0, 1)
    assert first["figures"] == second["figures"]
    assert any("taken from job " + ids[0] in line for line in jobs.logs(ids[1]))
    alone = jobs.job(finish(body))
    assert alone.method == "sparsegpt" and figures(jobs.job(ids[1])) == figures(alone)
    (front,) = [point.label for point in results.points if point.on_front and point.values["method"] == "sparsegpt"]
    assert front == "sparsegpt · 50%"
