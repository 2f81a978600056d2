"""Requests that cannot be meant: each named by what is wrong and what would be right, and nothing is queued."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import job_on

NO_SPARSITY = {"sparsity": None}
STRUCTURED = {"method": "llm-pruner"}
RECOVER = {"method": "recover", "recovery": {"method": "lora"}}

REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown method": ({"method": "snip"}, "unknown_method", "method"),
    "unknown model": ({"model": "nothing"}, "unknown_model", "model"),
    "unknown calibration": ({"calibration": {"dataset": "x"}}, "unknown_dataset", "calibration.dataset"),
    "self without end": ({"evaluation": {"datasets": ["self"]}}, "invalid_request", "evaluation.samples"),
    "words of an assistant in plain text": (
        {"calibration": {"dataset": "numbers", "samples": 1, "sequence_length": 32, "counted_tokens": "assistant"}},
        "invalid_request",
        "calibration.counted_tokens",
    ),
    "no calibration": ({"calibration": None}, "invalid_request", "calibration"),
    "sparsity": ({"sparsity": 1.5}, "invalid_sparsity", "sparsity"),
    "no sparsity": ({"sparsity": None}, "invalid_sparsity", "sparsity"),
    "sparsity and pattern": ({"sparsity": 0.3, "pattern": "2:4"}, "invalid_sparsity", "sparsity"),
    "pattern": ({"pattern": "4:2"}, "invalid_pattern", "pattern"),
    "width": ({"sparsity": None, "pattern": "1:5"}, "indivisible_width", "pattern"),
    "parameter": ({"parameters": {"nonsense": 1}}, "invalid_parameters", "parameters.nonsense"),
    "refit without calibration": (
        {
            "method": "random-structured",
            "sparsity": 0.2,
            "parameters": {"compensation": {"refit": 0.5}},
            "calibration": None,
        },
        "invalid_request",
        "calibration",
    ),
    "refit chosen on nothing held aside": (
        {
            "method": "l2-structured",
            "sparsity": 0.2,
            "parameters": {"compensation": {"refit": "auto"}},
            "calibration": {"dataset": "numbers", "samples": 1, "sequence_length": 32},
        },
        "invalid_request",
        "calibration.samples",
    ),
    "too little text": (
        {"calibration": {"dataset": "numbers", "samples": 1000, "sequence_length": 64}},
        "too_little_text",
        "calibration.samples",
    ),
    "longer than the context": (
        {"calibration": {"dataset": "numbers", "samples": 1, "sequence_length": 65}},
        "invalid_request",
        "calibration.sequence_length",
    ),
    "gate on tasks without tasks": (
        {"gates": {"max_task_accuracy_drop": 0.02}},
        "invalid_request",
        "gates.max_task_accuracy_drop",
    ),
    "unknown field": ({"colour": "green"}, "invalid_request", "colour"),
    "unknown task": ({"evaluation": {"tasks": ["boolq", "mmlu"]}}, "invalid_request", "evaluation.tasks.1"),
    "no room for a prompt": (
        {"evaluation": {"prompts": ["a"], "prompt_tokens": 63}},
        "invalid_request",
        "evaluation.prompt_tokens",
    ),
    "adapters on nothing": (
        {"recovery": {"method": "lora", "lora": {"targets": ["nothing"]}}},
        "invalid_request",
        "recovery.lora.targets",
    ),
    "teacher of a job that prunes": (
        {"recovery": {"method": "distill", "teacher": "tiny"}},
        "invalid_request",
        "recovery.teacher",
    ),
    "own text beside own text": (
        {"recovery": {"method": "distill", "dataset": "self", "samples": 4, "own_text": 0.5}},
        "invalid_request",
        "recovery.own_text",
    ),
    "recovery without text": (
        {"method": "magnitude", "calibration": None, "recovery": {"method": "lora"}},
        "invalid_request",
        "recovery.dataset",
    ),
    "recover without recovery": ({"method": "recover", "sparsity": None}, "invalid_request", "recovery"),
    "recover with sparsity": (
        {"method": "recover", "sparsity": 0.5, "recovery": {"method": "lora"}},
        "invalid_sparsity",
        "sparsity",
    ),
    "recover without teacher": (
        {"method": "recover", "sparsity": None, "recovery": {"method": "distill"}},
        "invalid_request",
        "recovery.teacher",
    ),
    "none, and nothing to write": ({"method": "none", "sparsity": None}, "invalid_request", "output"),
    "none with sparsity": ({"method": "none", "output": {"dtype": "bfloat16"}}, "invalid_sparsity", "sparsity"),
    "per layer, and nothing gets narrower": (
        {"output": {"layout": "per_layer"}},
        "invalid_request",
        "output.layout",
    ),
    "protected layers in a uniform layout": (
        {"method": "llm-pruner", "sparsity": 0.2, "parameters": {"protected_first": 1}},
        "invalid_parameters",
        "parameters.protected_first",
    ),
    "more than the unprotected layers have": (
        {
            "method": "l2-structured",
            "sparsity": 0.9,
            "parameters": {"protected_first": 1},
            "output": {"layout": "per_layer"},
        },
        "invalid_sparsity",
        "sparsity",
    ),
    "a queue nobody serves": ({"queue": "large"}, "unknown_queue", "queue"),
    "target: neither": (NO_SPARSITY | STRUCTURED, "invalid_sparsity", "sparsity"),
    "target: both": (STRUCTURED | {"sparsity": 0.2, "target": {"parameters": 5000}}, "invalid_sparsity", "sparsity"),
    "target: zeros in a dense file": ({"sparsity": None, "target": {"bytes": 20000}}, "invalid_target", "target.bytes"),
    "target: zeros are no faster": (
        {"sparsity": None, "target": {"latency_ratio": 0.9}},
        "invalid_target",
        "target.latency_ratio",
    ),
    "target: a pattern that fixes it": (
        {"sparsity": None, "pattern": "2:4", "target": {"parameters": 5000}},
        "invalid_target",
        "target",
    ),
    "target: recover": (NO_SPARSITY | RECOVER | {"target": {"parameters": 5000}}, "invalid_target", "target"),
    "metadata": ({"metadata": {"a": 1}}, "invalid_request", "metadata.a"),
}


@pytest.mark.parametrize(("change", "code", "param"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_meant_is_refused_before_it_is_queued(
    lasting_api: TestClient, change: dict[str, Any], code: str, param: str
) -> None:
    body = job_on("tiny", "numbers") | change
    response = lasting_api.post("/v1/jobs", json=body)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["param"]) == (422, code, param), problem
    inspected = lasting_api.post("/v1/models/inspect", json=body)
    if param == "calibration":  # which one who only asks need not have
        assert inspected.json()["assumed"][0].startswith("calibration on "), inspected.json()
        return
    assert (inspected.status_code, inspected.json()["code"], inspected.json()["param"]) == (422, code, param)
    assert lasting_api.get("/v1/jobs").json()["data"] == []


def test_a_message_says_what_would_help(lasting_api: TestClient) -> None:
    answers = [
        lasting_api.post("/v1/jobs", json=job_on(model, "numbers") | change).json()["detail"]
        for model, change in (("tinny", {}), ("tiny", {"sparsty": 0.5}))
    ]
    assert "'tiny'?" in answers[0] and "'sparsity'?" in answers[1]
