"""Bench of answers: its jobs, its requests, and goals beside figures."""

from typing import Any, cast

import pytest

from bench.answers.plan import AS_TODAY, CHATS, GOAL_REMOVAL, HALF, MIXTURES, REMOVALS, WIKIPEDIA, Case, cases
from bench.answers.prompts import draw_prompts
from bench.answers.report import page
from bench.answers.running import Bench, Size
from bench.cells import Runner
from bench.service import Service
from core.service.jobs.schemas import JobBody


def test_requests_differ_and_are_the_same_for_a_seed() -> None:
    assert draw_prompts(40) == draw_prompts(150)[:40] != draw_prompts(40, seed=1)
    assert len(set(draw_prompts(1000))) == 150


def test_jobs_are_on_their_mixtures_of_text() -> None:
    planned = list(cases(list(REMOVALS), MIXTURES, 2))
    assert len(planned) == len(set(planned)) == 4 * (len(REMOVALS) * len(MIXTURES) - 2)
    drawn, trained = {}, {}
    for case in planned:
        body = case.body(blocks=0.8, samples=40, length=512, windows=8, steps=9)
        JobBody.model_validate({"model": "smollm2-135m", **body})
        calibration, recovery = body["calibration"], body.get("recovery")
        assert (recovery is not None) == case.distilled
        if recovery is not None:
            trained[case.mixture] = (recovery["dataset"], recovery.get("own_text"), recovery.get("shape"))
        drawn[case.mixture] = (
            calibration["dataset"],
            calibration["samples"],
            calibration.get("generated"),
            calibration.get("shape"),
        )
    assert drawn[WIKIPEDIA] == ("wikipedia-calibration", 40, 0, None)
    assert drawn[AS_TODAY] == ("wikipedia-calibration", 40, None, None)
    assert drawn[HALF] == ("wikipedia-calibration", 20, 20, "chat")
    assert trained[WIKIPEDIA] == ("wikipedia-calibration", 0.0, None)
    assert trained[AS_TODAY] == ("wikipedia-calibration", None, None)
    assert trained[HALF] == ("wikipedia-calibration", 0.5, "chat") and trained[CHATS] == ("self", None, "chat")
    assert drawn[CHATS] == ("self", 40, None, "chat")


def _figures(kl: float, length: int) -> dict[str, Any]:
    return {
        "divergences": [kl * 10, kl * 20, kl * 10, kl * 20],
        "predictions": [10, 20, 10, 20],
        "same": [9, 18, 9, 18],
        "answers": [[1] * length] * 4,
    }


def _job(bits: float) -> dict[str, Any]:
    return {"bits_per_byte": {"dense": 1.0, "pruned": bits, "ratio": bits}, "perplexity": 1.5}


@pytest.mark.parametrize(("kl", "bits", "length", "met"), [(0.3, 1.21, 9, "yes"), (0.5, 1.3, 4, "no")])
def test_goals_stand_beside_what_came_out(kl: float, bits: float, length: int, met: str) -> None:
    bench = Bench(cast(Service, None), Runner(runs=False), 1, Size(40, 512, 8, 4, 64, 9), 0.8)
    assert "–" in page(bench) and "Not run" not in page(bench)
    bench.planned = list(cases([GOAL_REMOVAL], [WIKIPEDIA, HALF], 2))
    bench.dense = _figures(0.0, 10)
    for mixture, figures, job in (
        (WIKIPEDIA, _figures(0.7, 5), _job(1.2)),
        (HALF, _figures(kl, length), _job(bits)),
    ):
        bench.found[Case(GOAL_REMOVAL, mixture, 0)] = figures
        bench.jobs[Case(GOAL_REMOVAL, mixture, 0)] = job
    missing = page(bench).splitlines()[-1]
    assert missing.startswith(f"Not run: 6 of 8 cells: {GOAL_REMOVAL}, {WIKIPEDIA}, distilled, seed 0, 1; ")
    assert missing.endswith(f"{GOAL_REMOVAL}, {HALF}, seed 1.")
    goals = [line.split("|") for line in page(bench).splitlines() if line.startswith("|")][2:5]
    assert [line[4].strip() for line in goals] == [met] * 3
    assert goals[0][3].strip() == f"{kl / 0.7:.2f} ± 0.00"
    assert goals[2][3].strip() == f"{length / 10:.2f}"
