"""Requests that cannot be meant: each named by what is wrong and what would be right, and nothing is queued."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import job_on

REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown method": ({"method": "snip"}, "unknown_method", "method"),
    "unknown model": ({"model": "nothing"}, "unknown_model", "model"),
    "no name of the hub": ({"model": "org/name/more"}, "unknown_model", "model"),
    "no revision of the hub": ({"model": "org/name@../main"}, "unknown_model", "model"),
    "no dataset of the hub": ({"evaluation": {"datasets": ["a/b:c:d:e"]}}, "unknown_dataset", "evaluation.datasets.0"),
    "unknown job": ({"model": "job:job_0"}, "unknown_model", "model"),
    "unknown calibration": ({"calibration": {"dataset": "x"}}, "unknown_dataset", "calibration.dataset"),
    "self without end": ({"evaluation": {"datasets": ["self"]}}, "invalid_request", "evaluation.samples"),
    "self beside self": (
        {"calibration": {"dataset": "self", "samples": 4, "generated": 4}},
        "invalid_request",
        "calibration.generated",
    ),
    "words of an assistant in plain text": (
        {"calibration": {"dataset": "numbers", "samples": 1, "sequence_length": 32, "counted_tokens": "assistant"}},
        "invalid_request",
        "calibration.counted_tokens",
    ),
    "unknown evaluation": ({"evaluation": {"datasets": ["x"]}}, "unknown_dataset", "evaluation.datasets.0"),
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
    "no samples": (
        {"calibration": {"dataset": "numbers", "samples": 0}},
        "invalid_request",
        "calibration.samples",
    ),
    "gate without evaluation": (
        {"evaluation": {}, "gates": {"max_perplexity_ratio": 2}},
        "invalid_request",
        "gates.max_perplexity_ratio",
    ),
    "gate on tasks without tasks": (
        {"gates": {"max_task_accuracy_drop": 0.02}},
        "invalid_request",
        "gates.max_task_accuracy_drop",
    ),
    "gate of classifiers": ({"gates": {"max_accuracy_drop": 0.1}}, "invalid_request", "gates.max_accuracy_drop"),
    "gate on part of a byte": ({"gates": {"max_bytes": 0.5}}, "invalid_request", "gates.max_bytes"),
    "unknown field": ({"colour": "green"}, "invalid_request", "colour"),
    "unknown nested field": ({"calibration": {"dataset": "numbers", "rows": 1}}, "invalid_request", "calibration.rows"),
    "unknown task": ({"evaluation": {"tasks": ["boolq", "mmlu"]}}, "invalid_request", "evaluation.tasks.1"),
    "a task twice": ({"evaluation": {"tasks": ["piqa", "piqa"]}}, "invalid_request", "evaluation.tasks.1"),
    "one question": ({"evaluation": {"tasks": ["piqa"], "task_limit": 1}}, "invalid_request", "evaluation.task_limit"),
    "tasks made by a program, which have left": (
        {"evaluation": {"datasets": ["simple-tasks:add"]}},
        "unknown_dataset",
        "evaluation.datasets.0",
    ),
    "many examples": ({"evaluation": {"num_fewshot": 26}}, "invalid_request", "evaluation.num_fewshot"),
    "many prompts": ({"evaluation": {"prompts": ["a"] * 9}}, "invalid_request", "evaluation.prompts"),
    "an empty prompt": ({"evaluation": {"prompts": ["a", ""]}}, "invalid_request", "evaluation.prompts.1"),
    "a long prompt": ({"evaluation": {"prompts": ["a" * 2001]}}, "invalid_request", "evaluation.prompts.0"),
    "no new token": ({"evaluation": {"prompt_tokens": 0}}, "invalid_request", "evaluation.prompt_tokens"),
    "no room for a prompt": (
        {"evaluation": {"prompts": ["a"], "prompt_tokens": 63}},
        "invalid_request",
        "evaluation.prompt_tokens",
    ),
    "recovery without method": ({"recovery": {"steps": 1}}, "invalid_request", "recovery.method"),
    "unknown recovery": ({"recovery": {"method": "hope"}}, "invalid_request", "recovery.method"),
    "unknown field of recovery": ({"recovery": {"method": "lora", "rows": 1}}, "invalid_request", "recovery.rows"),
    "no step": ({"recovery": {"method": "lora", "steps": 0}}, "invalid_request", "recovery.steps"),
    "no rank": ({"recovery": {"method": "lora", "lora": {"r": 0}}}, "invalid_request", "recovery.lora.r"),
    "adapters on nothing": (
        {"recovery": {"method": "lora", "lora": {"targets": ["nothing"]}}},
        "invalid_request",
        "recovery.lora.targets",
    ),
    "adapters without adapters": ({"recovery": {"method": "finetune", "lora": {}}}, "invalid_request", "recovery.lora"),
    "temperature": ({"recovery": {"method": "lora", "temperature": 2}}, "invalid_request", "recovery.temperature"),
    "hidden states without a teacher": (
        {"recovery": {"method": "finetune", "hidden_states": 1}},
        "invalid_request",
        "recovery.hidden_states",
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
    "unknown text to train on": (
        {"recovery": {"method": "lora", "dataset": "x"}},
        "unknown_dataset",
        "recovery.dataset",
    ),
    "too little text to train on": (
        {"recovery": {"method": "lora", "dataset": "numbers", "samples": 1000, "sequence_length": 64}},
        "too_little_text",
        "recovery.samples",
    ),
    "self without end, to train on": (
        {"recovery": {"method": "lora", "dataset": "self"}},
        "invalid_request",
        "recovery.samples",
    ),
    "training beyond the context": (
        {"recovery": {"method": "lora", "sequence_length": 65}},
        "invalid_request",
        "recovery.sequence_length",
    ),
    "recover without recovery": ({"method": "recover", "sparsity": None}, "invalid_request", "recovery"),
    "recover with sparsity": (
        {"method": "recover", "sparsity": 0.5, "recovery": {"method": "lora"}},
        "invalid_sparsity",
        "sparsity",
    ),
    "recover with pattern": (
        {"method": "recover", "sparsity": None, "pattern": "2:4", "recovery": {"method": "lora"}},
        "invalid_pattern",
        "pattern",
    ),
    "recover with parameters": (
        {
            "method": "recover",
            "sparsity": None,
            "parameters": {"skip_layers": [0]},
            "recovery": {"method": "lora"},
        },
        "invalid_parameters",
        "parameters",
    ),
    "recover without teacher": (
        {"method": "recover", "sparsity": None, "recovery": {"method": "distill"}},
        "invalid_request",
        "recovery.teacher",
    ),
    "recover with unknown teacher": (
        {"method": "recover", "sparsity": None, "recovery": {"method": "distill", "teacher": "job:job_0"}},
        "unknown_model",
        "recovery.teacher",
    ),
    "none, and nothing to write": ({"method": "none", "sparsity": None}, "invalid_request", "output"),
    "none with sparsity": ({"method": "none", "output": {"dtype": "bfloat16"}}, "invalid_sparsity", "sparsity"),
    "none with recovery": (
        {"method": "none", "sparsity": None, "output": {"format": "packed"}, "recovery": {"method": "lora"}},
        "invalid_request",
        "recovery",
    ),
    "per layer, and nothing gets narrower": (
        {"output": {"layout": "per_layer"}},
        "invalid_request",
        "output.layout",
    ),
    "a layout there is not": ({"output": {"layout": "diagonal"}}, "invalid_request", "output.layout"),
    "protected layers in a uniform layout": (
        {"method": "llm-pruner", "sparsity": 0.2, "parameters": {"protected_first": 1}},
        "invalid_parameters",
        "parameters.protected_first",
    ),
    "ranked over the model in a uniform layout": (
        {"method": "l2-structured", "sparsity": 0.2, "parameters": {"scope": "model"}},
        "invalid_parameters",
        "parameters.scope",
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


def test_messages_say_what_would_help(api: TestClient, job_body: dict[str, Any]) -> None:
    def detail(**change: Any) -> str:
        answer = api.post("/v1/jobs", json=job_body | change).json()["detail"]
        assert isinstance(answer, str)
        return answer

    assert "tiny" in detail(model="smol") and "numbers" in detail(calibration={"dataset": "x"})
    assert "model.layers.0.self_attn.q_proj" in detail(sparsity=None, pattern="1:5")
    too_little = detail(calibration={"dataset": "numbers", "samples": 1000, "sequence_length": 64})
    unknown_task = detail(evaluation={"tasks": ["mmlu"]})
    assert "'mmlu'" in unknown_task and "boolq, piqa, hellaswag, winogrande, arc_easy" in unknown_task
    no_room = detail(evaluation={"prompts": ["a"], "prompt_tokens": 100})
    assert "context of 64" in no_room and "at most 62" in no_room
    assert "0.5?" in detail(sparsity=50) and "'numbers'?" in detail(calibration={"dataset": "number"})
    assert "'tiny'?" in detail(model="tinny") and "'sparsity'?" in detail(sparsty=0.5)
    assert "'packed'?" in detail(output={"format": "pakced"}) and "'2:4'?" in detail(pattern="2-4")
    assert "'distill'?" in detail(recovery={"method": "distil"}) and "org/name" in detail(model="../models/x")
    assert "Input should" not in detail(output={"dtype": 1}, gates=None, priority=1.5, metadata={"a": 1}, queue="")
    assert "64000 tokens" in too_little and "10001 bytes" not in too_little and "it has" in too_little
