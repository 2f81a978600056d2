"""What a sweep may be asked: points, what is refused and why, and what comes out beside one another."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from core.service.sweeps.grid import requested_points
from core.service.sweeps.schemas import SweepBody
from secateur_wire.errors import InvalidRequest
from tests.client.command_line import RunHere
from tests.sweeps.conftest import Sweeps


def test_a_grid_is_every_combination_and_points_are_added_once(grid_body: dict[str, Any]) -> None:
    grid = {"method": ["wanda"], "sparsity": [0.4, 0.5], "parameters.scope": ["layer", "row"]}
    points = [{"method": "wanda", "sparsity": 0.5, "parameters.scope": "row"}, {"method": "magnitude", "sparsity": 0.1}]
    asked = requested_points(SweepBody.model_validate(grid_body | {"grid": grid, "points": points}))
    assert [each.values for each in asked] == [
        {"method": "wanda", "sparsity": sparsity, "parameters.scope": scope}
        for sparsity in (0.4, 0.5)
        for scope in ("layer", "row")
    ] + [{"method": "magnitude", "sparsity": 0.1}]
    assert asked[0].body["parameters"] == {"scope": "layer"}
    assert asked[0].body["model"] == "tiny" and "parameters" not in grid_body["job"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"grid": {"method": ["wanda", "frobnicate"], "sparsity": [0.5]}}, "frobnicate"),
        ({"grid": {"method": ["wanda"], "sparsity": [0.5, 1.5]}}, r"1 of 2 points cannot be run: \(method=wanda"),
        ({"grid": {"method": ["magnitude"], "sparsity": [0.5], "parameters.block_size": [64]}}, "magnitude takes"),
        ({"grid": {"sparcity": [0.5]}}, "is not a field of a job body"),
        ({"grid": {"model": ["tiny"]}}, "the same for all points"),
        (
            {"grid": {"priority": list(range(-50, 51)), "sparsity": [0.1, 0.2, 0.3, 0.4, 0.5]}},
            "505 points, but at",
        ),
        ({"job": {"model": "tiny", "metadata": {"sweep": "mine"}}}, "set by the service"),
        ({"grid": {"method": ["sensitivity"]}}, "makes no model"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(
    sweeps: Sweeps, grid_body: dict[str, Any], change: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told):
        sweeps.submit(grid_body | change)
    assert not sweeps.jobs()


@pytest.mark.parametrize(
    ("job", "search", "told"),
    [
        ({"sparsity": 0.5}, {}, "the search chooses it"),
        ({"gates": {"max_perplexity_ratio": 2}}, {}, "search.subject_to"),
        ({"evaluation": {}}, {}, "needs a text to measure on"),
        ({}, {"subject_to": {"max_task_accuracy_drop": 0.1}}, "needs tasks to measure on"),
        ({}, {"subject_to": {"max_answer_kl": 0.5}}, "needs questions to measure on"),
        ({}, {"subject_to": {"max_accuracy_drop": 0.1}}, "is only for image classifiers"),
        ({}, {"methods": ["depth"], "sparsities": [0.001]}, "1 of 1 points cannot be run"),
    ],
)
def test_a_search_that_cannot_be_meant_is_refused(
    sweeps: Sweeps, search_body: dict[str, Any], job: dict[str, Any], search: dict[str, Any], told: str
) -> None:
    body = search_body | {"job": search_body["job"] | job, "search": search_body["search"] | search}
    with pytest.raises(InvalidRequest, match=told):
        sweeps.submit(body)


def test_results_have_the_front_and_the_best(sweeps: Sweeps, grid_body: dict[str, Any]) -> None:
    sweep_id = sweeps.submit(grid_body)
    sweeps.finish(sweep_id, lambda body: 1 + body["sparsity"] * (2 if body["method"] == "magnitude" else 1))
    results = sweeps.results(sweep_id)
    assert [point.label for point in results.points][:2] == ["magnitude · 30%", "magnitude · 50%"]
    assert not any(point.on_front for point in results.points), "as many bytes as the dense model, which is better"
    by_parameters = sweeps.results(sweep_id, "parameters")
    assert [point.on_front for point in by_parameters.points] == [False, False, False, True, True, True]
    assert {best.objective: best.label for best in results.best} == {
        "min_parameters": "magnitude · 70%",  # as small as wanda's, and first
        "min_bytes": "magnitude · 30%",
        "min_latency": "magnitude · 30%",
        "min_perplexity": "wanda · 30%",
    }
    assert results.points[5].figures is not None and results.points[5].figures.perplexity_ratio == 1.7
    assert len(results.trade_off.points) == 7, "six jobs and the dense model"


RATIOS = {"magnitude": [1.2, 1.9, 6, 30], "wanda": [1.1, 1.3, 1.9, 4.0], "sparsegpt": [1.1, 1.2, 1.5, 2.5]}
"""At sparsities 0.3, 0.4, 0.5, 0.6."""


def known_ratio(body: dict[str, Any]) -> float:
    return RATIOS[body["method"]][round(body["sparsity"] * 10) - 3]


@pytest.mark.parametrize(
    ("limit", "most", "reached"),
    [
        ("max_perplexity_ratio", 1.6, 1.9),
        ("max_answer_kl", 0.6, 0.9),
    ],
)
def test_a_search_finds_the_winner_of_the_whole_grid_with_fewer_jobs(
    sweeps: Sweeps, search_body: dict[str, Any], limit: str, most: float, reached: float
) -> None:
    evaluation = search_body["job"]["evaluation"]
    answers = {"datasets": evaluation["datasets"], "max_new_tokens": 8}
    job = search_body["job"] | {"evaluation": evaluation | {"answers": answers}}
    search = search_body["search"] | {"subject_to": {limit: most}}
    sweep_id = sweeps.submit({**search_body, "job": job, "search": search})
    assert sweeps.finish(sweep_id, known_ratio).status == "succeeded"
    results = sweeps.results(sweep_id)
    assert results.search is not None and results.search.number is not None
    winner = results.points[results.search.number]
    assert winner.values == {"method": "sparsegpt", "sparsity": 0.5} and winner.status == "succeeded"
    assert (results.search.jobs, results.search.candidates) == (4, 12) and len(sweeps.jobs()) == 4
    assert results.search.nearest is None
    assert results.sweep.points.not_run == 8
    missed = next(point for point in results.points if point.values == {"method": "wanda", "sparsity": 0.5})
    assert [(each.constraint, each.value) for each in missed.unmet] == [(limit, pytest.approx(reached))]


def test_a_winner_of_cheap_probes_is_measured_in_full_and_the_next_best_taken_where_it_fails(
    sweeps: Sweeps, search_body: dict[str, Any]
) -> None:
    """The probes' few samples flatter sparsegpt at 0.5; in full it misses the limit, and wanda at 0.4 keeps it."""
    search = search_body["search"] | {"probe": {"samples": 2}}
    sweep_id = sweeps.submit(search_body | {"search": search})

    def ratio(body: dict[str, Any]) -> float:
        is_full = body["evaluation"]["samples"] == 4
        return known_ratio(body) + (0.2 if is_full and body["sparsity"] == 0.5 else 0)

    assert sweeps.finish(sweep_id, ratio).status == "succeeded"
    results = sweeps.results(sweep_id)
    assert results.search is not None and results.search.number is not None
    winner = results.points[results.search.number]
    assert winner.stage == "full" and winner.values["sparsity"] == 0.4 and winner.label.endswith("in full")
    full = [job for job in sweeps.jobs() if job.body["evaluation"]["samples"] == 4]
    assert [job.status for job in full] == ["failed", "succeeded"]
    assert all(job.body["gates"]["max_perplexity_ratio"] == 1.6 for job in full)
    assert full[0].error is not None and full[0].error["code"] == "gate_missed"
    assert len(results.sweep.dense) == 2, "the dense model was measured once by each evaluation"


def test_a_winner_that_no_job_is_left_to_verify_is_not_called_one(sweeps: Sweeps, search_body: dict[str, Any]) -> None:
    """The one full evaluation that max_jobs has room for misses the limit."""
    search = search_body["search"] | {"methods": ["wanda"], "probe": {"samples": 2}, "max_jobs": 4}
    sweep_id = sweeps.submit(search_body | {"search": search})
    is_flattered = {True: 1.0, False: 2.0}
    sweep = sweeps.finish(sweep_id, lambda body: is_flattered[body["evaluation"]["samples"] == 2])
    assert sweep.status == "failed" and len(sweeps.jobs()) <= 4
    outcome = sweeps.results(sweep_id).search
    assert outcome is not None and outcome.number is None and sweep.error is not None
    assert sweep.error.message == outcome.message


def test_the_commands_run_list_show_and_cancel(
    here: RunHere,
    sweeps: Sweeps,
    model: str,
    dataset: str,
) -> None:
    texts = f"--calibration {dataset} --calibration-samples 8 --sequence-length 32 --evaluation {dataset}".split()
    run = ("sweep", "run", "--model", model, *texts)
    varied = ("--method", "magnitude", "--method", "wanda", "--sparsity", "0.5")
    started = here(*run, *varied, "--name", "both", "--json").json
    assert started["points"]["total"] == 2 and started["grid"] == {"method": ["magnitude", "wanda"], "sparsity": [0.5]}
    sweeps.finish(started["id"])
    shown = here("sweep", "show", started["id"])
    assert shown.code == 0 and "magnitude · 50%" in shown.out and "min_perplexity" in shown.out
    assert here("sweep", "show", started["id"], "--json").json["object"] == "sweep_results"
    assert "both" in here("sweeps").out and len(here("sweeps", "--json").json) == 1
    searched = ("--search", "min_parameters", "--subject-to", "max_perplexity_ratio=1.5", "--max-jobs", "9")
    search = here(*run, "--method", "wanda", *searched, "--json").json
    assert search["search"]["subject_to"]["max_perplexity_ratio"] == 1.5 and search["points"]["total"] == 17
    assert "is cancelled" in here("sweep", "cancel", search["id"]).out
    assert "is running" in here("sweep", "resume", search["id"]).out


def test_a_sweep_in_a_file_is_waited_for_and_its_end_is_the_exit_code(
    here: RunHere,
    sweeps: Sweeps,
    search_body: dict[str, Any],
    tmp_path: Path,
) -> None:
    search = search_body["search"] | {"subject_to": {"max_perplexity_ratio": 1.01}, "sparsities": [0.5]}
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps(search_body | {"search": search}))
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            sweeps.advance()
            sweeps.work()
            stop.wait(0.05)

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        waited = here("sweep", "run", str(file), "--wait")
    finally:
        stop.set()
        serving.join()
    assert waited.code == 3 and "No measured model is within the limits" in waited.out
    assert "failed: 3 of 3" in waited.err
