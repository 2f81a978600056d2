"""Targets over REST: what they resolve to, that a recipe runs again, and what is refused."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import job_on

PARAMETERS = 6480
"""Of the model; 4352 of them are prunable, and 4 bytes each."""
RECOVER = {"method": "recover", "recovery": {"method": "lora"}}
STRUCTURED = {"method": "llm-pruner"}


@pytest.fixture
def body(job_body: dict[str, Any]) -> dict[str, Any]:
    return without_sparsity(job_body)


def without_sparsity(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "sparsity"}


@pytest.mark.parametrize(
    ("change", "sparsity"),
    [
        (STRUCTURED | {"target": {"parameters": 4860}}, 0.25),
        (STRUCTURED | {"target": {"parameters": 4.86e3}}, 0.25),
        (STRUCTURED | {"target": {"bytes": 4 * 4860}}, 0.25),
        ({"method": "depth", "target": {"parameters": PARAMETERS}}, 0),
        ({"target": {"parameters": PARAMETERS - 2176}}, 0.5 + 0.5 / 16),  # half a weight of the narrowest row
        (
            {"target": {"bytes": 4 * (PARAMETERS - 2176) + 4352 // 8}, "output": {"format": "packed"}},
            0.5 + 0.5 / 16,
        ),
        (STRUCTURED | {"target": {"bytes": 2 * 4860}, "output": {"dtype": "bfloat16"}}, 0.25),
        (
            {
                "target": {"bytes": 2 * (PARAMETERS - 2176) + 4352 // 8},
                "output": {"format": "packed", "dtype": "float16"},
            },
            0.5 + 0.5 / 16,
        ),
    ],
)
def test_a_target_is_kept_as_given_beside_the_sparsity_it_means_and_the_recipe_runs_again(
    api: TestClient, body: dict[str, Any], change: dict[str, Any], sparsity: float
) -> None:
    inspected = api.post("/v1/models/inspect", json=body | change).raise_for_status().json()["job"]
    job = api.post("/v1/jobs", json=body | change).raise_for_status().json()
    for answer in (inspected, job):
        assert answer["target"] == change["target"]
        assert answer["sparsity"] == pytest.approx(sparsity, abs=1e-12)
    again = api.post("/v1/jobs", json=inspected).raise_for_status().json()
    assert (again["target"], again["sparsity"]) == (job["target"], job["sparsity"])
    other = api.post("/v1/jobs", json=inspected | {"sparsity": job["sparsity"] + 0.01})
    assert (other.status_code, other.json()["code"], other.json()["param"]) == (422, "invalid_sparsity", "sparsity")
    assert "leave one of them out" in other.json()["detail"]


def test_an_artifact_in_half_the_bytes_is_estimated_at_half(api: TestClient, job_body: dict[str, Any]) -> None:
    def inspected(**output: str) -> dict[str, Any]:
        answer = api.post("/v1/models/inspect", json=job_body | {"output": output}).raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    wide, narrow = inspected(), inspected(dtype="bfloat16")
    assert (wide["artifact"]["bytes"], narrow["artifact"]["bytes"]) == (4 * PARAMETERS, 2 * PARAMETERS)
    assert (narrow["bytes"], narrow["job"]["output"]["dtype"]) == (wide["bytes"], "bfloat16")
    assert narrow["estimate"]["disk_bytes"] < wide["estimate"]["disk_bytes"]


def test_a_latency_leaves_the_sparsity_to_the_worker_and_counts_in_the_estimate(
    api: TestClient, body: dict[str, Any]
) -> None:
    asked = body | STRUCTURED
    without = api.post("/v1/models/inspect", json=asked | {"sparsity": 0.25}).json()["estimate"]
    answer = api.post("/v1/models/inspect", json=asked | {"target": {"latency_ratio": 0.7}}).raise_for_status().json()
    assert (answer["job"]["target"], answer["job"]["sparsity"]) == ({"latency_ratio": 0.7}, None)
    assert answer["estimate"]["forward_tokens"] > without["forward_tokens"]
    assert {each["method"] for each in answer["methods"] if each["fits"]} >= {"depth", "llm-pruner"}
    job = api.post("/v1/jobs", json=answer["job"]).raise_for_status().json()
    assert (job["target"], job["sparsity"], job["pattern"]) == ({"latency_ratio": 0.7}, None, "structured")


REFUSALS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "none of the three": ({"target": {}}, "invalid_request", "target", "exactly one of parameters, bytes"),
    "two": ({"target": {"bytes": 1, "parameters": 1}}, "invalid_request", "target", "exactly one"),
    "another": ({"target": {"flops": 1}}, "invalid_request", "target.flops", "unknown field"),
    "no object": ({"target": 0.5}, "invalid_request", "target", "an object with any of"),
    "zero": ({"target": {"parameters": 0}}, "invalid_request", "target.parameters", "at least 1"),
    "negative": ({"target": {"bytes": -5}}, "invalid_request", "target.bytes", "at least 1"),
    "a half": ({"target": {"bytes": 1.5}}, "invalid_request", "target.bytes", "a whole number"),
    "huge": ({"target": {"parameters": 1e300}}, "invalid_request", "target.parameters", "too large"),
    "no text": ({"target": {"parameters": "NaN"}}, "invalid_request", "target.parameters", "a whole number"),
    "not a number": ({"target": {"latency_ratio": "NaN"}}, "invalid_request", "target.latency_ratio", "finite"),
    "no gain": (
        STRUCTURED | {"target": {"latency_ratio": 1}}, "invalid_request", "target.latency_ratio", "below 1",
    ),
    "no time": ({"target": {"latency_ratio": 0}}, "invalid_request", "target.latency_ratio", "above 0"),
    "neither": (STRUCTURED, "invalid_sparsity", "sparsity", "sparsity is required"),
    "both": (
        STRUCTURED | {"sparsity": 0.2, "target": {"parameters": 5000}}, "invalid_sparsity", "sparsity", "both given",
    ),
    "a latency and a sparsity": (
        STRUCTURED | {"sparsity": 0.2, "target": {"latency_ratio": 0.5}}, "invalid_sparsity", "sparsity", "both given",
    ),
    "more parameters": (
        STRUCTURED | {"target": {"parameters": 6481}}, "invalid_target", "target.parameters", "has only 6,480",
    ),
    "more bytes": (
        STRUCTURED | {"target": {"bytes": 10**18}}, "invalid_target", "target.bytes", "has only 25,920",
    ),
    "too few": (
        STRUCTURED | {"target": {"parameters": 100}}, "invalid_target", "target.parameters", "the nearest is 3,920",
    ),
    "too few layers": (
        {"method": "depth", "target": {"bytes": 1000}}, "invalid_target", "target.bytes", "the nearest is 17,088",
    ),
    "zeros of everything": ({"target": {"parameters": 100}}, "invalid_target", "target.parameters", "the nearest is"),
    "zeros in a dense file": ({"target": {"bytes": 20000}}, "invalid_target", "target.bytes", "'packed'"),
    "zeros are no faster": (
        {"target": {"latency_ratio": 0.9}}, "invalid_target", "target.latency_ratio", "no speed-up is expected",
    ),
    "a pattern that fixes it": (
        {"pattern": "2:4", "target": {"parameters": 5000}}, "invalid_target", "target", "'2:4' fixes",
    ),
    "a list that fixes it": (
        {"parameters": {"allocation": [0.1, 0.2]}, "target": {"parameters": 5000}}, "invalid_target", "target", "list",
    ),
    "recover": (RECOVER | {"target": {"parameters": 5000}}, "invalid_target", "target", "recover prunes nothing"),
    "another fault": (
        STRUCTURED | {"parameters": {"round_to": 0}, "target": {"parameters": 5000}},
        "invalid_parameters", "parameters.round_to", "at least 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "code", "param", "says"), REFUSALS.values(), ids=REFUSALS)
def test_targets_that_cannot_be_meant_are_refused_before_they_are_queued(
    lasting_api: TestClient, change: dict[str, Any], code: str, param: str, says: str
) -> None:
    body = without_sparsity(job_on("tiny", "numbers")) | change
    for path in ("/v1/jobs", "/v1/models/inspect"):
        answer = lasting_api.post(path, json=body)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["param"]) == (422, code, param), problem
        assert says in problem["detail"]
    assert lasting_api.get("/v1/jobs").json()["data"] == []
