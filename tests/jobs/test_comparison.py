"""Jobs beside one another: differences, the Pareto front, layers."""

import copy
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session, sessionmaker

from api.openapi.examples import EXAMPLES
from core.service.jobs.comparison import compare, compared_fields, is_same_in_all, layer_figures
from core.service.jobs.schemas import Job
from core.service.jobs.trade_off import beaten_by
from core.storage import Store
from tests.api.ended_job import succeeded_job
from tests.conftest import bearer

_COORDINATES = st.floats(0, 4, allow_subnormal=False) | st.integers(0, 3).map(float)
_POINTS = st.lists(st.tuples(_COORDINATES, _COORDINATES), max_size=12)
Point = tuple[float, float]


def _beats(one: Point, other: Point) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


@given(_POINTS)
@settings(deadline=None)
def test_the_front_is_what_nothing_beats_and_it_beats_all_others(points: list[Point]) -> None:
    beaten = beaten_by(points)
    for point, by in zip(points, beaten, strict=True):
        if by is None:
            assert not any(_beats(other, point) for other in points)
        else:
            assert _beats(points[by], point) and beaten[by] is None
    assert not points or None in beaten


def _job(**changes: Any) -> Job:
    document = copy.deepcopy(EXAMPLES["Job"])
    for name, value in changes.items():
        *path, last = name.split("__")
        inner = document
        for each in path:
            inner = inner[each]
        inner[last] = value
    return Job.model_validate(document)


def test_quality_against_cost_has_the_dense_model_and_says_what_is_not_comparable() -> None:
    worse_s = {"dense": 25.0, "pruned": 60.0, "sequence_length": 512}
    worse = _job(id="job_2", metrics__perplexity={"wikipedia-articles": worse_s})
    smaller = _job(id="job_3", metrics__parameters={"dense": 134515008, "nonzero": 7}, evaluation__samples=None)
    running = _job(id="job_4", metrics=None, status="running")
    found = compare([_job(), worse, smaller, running], {}, quality=None, cost="parameters").trade_off
    assert found.quality == "perplexity:wikipedia-articles"
    assert found.qualities == ["accuracy:piqa", "perplexity:wikipedia-articles", "bits_per_byte:wikipedia-articles"]
    assert [(point.job, point.beaten_by) for point in found.points] == [
        (EXAMPLES["Job"]["id"], None),
        ("job_2", 0),
        ("job_3", None),
        (None, None),
        (None, None),
    ], "jobs are ranked only against those that were measured on as many windows"
    assert (found.points[4].label.partition(" (")[0], found.points[4].quality) == ("smollm2-135m, dense", 25.0)
    assert found.without == ["job_4"]
    assert found.notes == [
        "Perplexity was measured on 64 and all windows: not the same measurement, so these are not ranked against each "
        "other."
    ]
    smaller = smaller.model_copy(update={"evaluation": _job().evaluation})
    bits = compare([_job(), smaller], {}, quality="bits_per_byte:wikipedia-articles", cost="parameters").trade_off
    assert [point.quality for point in bits.points] == [1.2738, 1.2738, 1.1005] and bits.points[0].beaten_by == 1
    assert bits.points[0].quality_noise == pytest.approx(1.1005 * 0.0022)
    accurate = compare([_job(), smaller], {}, quality="accuracy:piqa", cost="latency").trade_off
    assert [point.beaten_by for point in accurate.points] == [None, None, None]
    assert accurate.points[2].cost == 101.3
    assert not compare([_job(), running], {}, quality="accuracy:boolq", cost="bytes").trade_off.points


def test_what_measuring_cannot_tell_apart_is_no_difference() -> None:
    latency = _job().measured.latency
    assert latency is not None and latency.pruned_ms is not None
    errors = {"dense_stderr": 0.0469, "pruned_stderr": 0.0488, "metric": "acc", "samples": 100}
    text = next(iter(_job().measured.perplexity))
    one, near, far = (
        _job(
            id=f"job_{number}",
            metrics__sparsity={"prunable": share, "model": 0.39},
            metrics__latency__pruned_ms=time,
            metrics__tasks={"piqa": {"dense": 0.68, "pruned": accuracy, **errors}},
            metrics__perplexity={
                text: {"dense": 20.0, "pruned": 20 * ratio, "ratio": ratio, "ratio_stderr": 0.01 + ratio / 1e4}
            },
        )
        for number, (share, time, accuracy, ratio) in enumerate(
            (
                (0.5, latency.pruned_ms, 0.62, 1.1),
                (0.5000001, latency.pruned_ms * 1.02, 0.64, 1.11),
                (0.6, 1.0, 0.5, 1.2),
            )
        )
    )
    apart = {"sparsity.prunable", "latency.pruned_ms", "tasks.piqa.pruned"}
    apart |= {f"perplexity.{text}.pruned", f"perplexity.{text}.ratio"}
    for other, differing in ((near, set()), (far, apart)):
        fields = {each.name: each for each in compared_fields([one, other])}
        assert {name for name, each in fields.items() if each.kind == "figure" and each.differs} == differing
    quality = f"perplexity:{text}"
    same, different = (compare([one, each], {}, quality=quality, cost=None).trade_off for each in (near, far))
    assert [any("same quality" in note for note in each.notes) for each in (same, different)] == [True, False]
    assert same.points[0].quality_noise == pytest.approx(20 * (0.01 + 1.1e-4))
    row = {"name": "q", "layer": 0, "in_features": 4, "out_features": 4}
    layers = [layer_figures("job", [row | {"sparsity": share}]) for share in (0.5, 0.5000001, 0.6)]
    assert is_same_in_all(layers[:2], "sparsity") and not is_same_in_all(layers, "sparsity")
    assert not is_same_in_all(layers[:1], "sparsity") and not is_same_in_all(layers, "error"), "of one, or of none"


def test_jobs_are_compared_over_rest_within_their_team(
    api: TestClient,
    sessions: sessionmaker[Session],
    store: Store,
    tmp_path: Any,
    job_body: dict[str, Any],
    other_team_key: str,
) -> None:
    done = succeeded_job(api, sessions, store, tmp_path / "artifact", model="tiny")
    waiting = api.post("/v1/jobs", json=job_body).json()["id"]
    answer = api.get("/v1/jobs/compare", params={"job": [waiting, done, waiting]})
    assert answer.status_code == 200, answer.text
    fields = {each["name"]: each["values"] for each in answer.json()["fields"]}
    assert fields["method"] == ["wanda", "magnitude"] and fields["status"] == ["queued", "succeeded"]
    for named, status in (([done, done], 422), ([f"job_{n}" for n in range(21)], 422), ([done, "job_0"], 404)):
        assert api.get("/v1/jobs/compare", params={"job": named}).status_code == status, named
    other = api.get("/v1/jobs/compare", params={"job": [waiting, done]}, headers=bearer(other_team_key))
    assert other.status_code == 404
