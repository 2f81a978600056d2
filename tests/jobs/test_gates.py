import math
from typing import Any

import pytest

from core.engine.architectures.description import MODEL_TASKS
from core.service.jobs.gates import evaluate_gates, gates_report, missed_gates, require_measured
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import Evaluation, Gates
from secateur_wire.metrics import Latency, Metrics, Perplexity
from secateur_wire.reports import GateResult
from tests.answers import compared

FIGURES: dict[str, Any] = {
    "perplexity": {
        "oak": {
            "dense": 10.0,
            "pruned": 20.0,
            "ratio": 2.0,
            "bits_per_byte": {"dense": 1.0, "pruned": 1.3, "ratio": 1.3},
        }
    },
    "accuracy": {"leaves": {"dense": 0.93, "pruned": 0.92}},
    "tasks": {"piqa": {"dense": 0.7, "pruned": 0.65}, "boolq": {"dense": 0.6, "pruned": 0.61}},
    "task_mean": {"dense": 0.65, "pruned": 0.63},
    "parameters": {"dense": 1000, "nonzero": 600},
    "bytes": {"dense": 4000, "artifact": 4000, "packed": 2500},
    "exports": [
        {"file": f"model-{each}.gguf", "format": "gguf", "type": each, "bytes": 9, "kl": kl}
        for each, kl in (("F16", 0.0), ("Q8_0", 0.004))
    ],
    "answers": {"chats": compared(0.5, 0.5), "prompts": compared(0.25, 1.25)},
    "latency": {"dense_ms": 10.0, "pruned_ms": 8.0, "spread": 0.05},
}
METRICS = Metrics.model_validate(FIGURES)


@pytest.mark.parametrize(
    ("gate", "at", "below", "figures"),
    [
        ("max_perplexity_ratio", 2.0, 1.9, {"oak": 2.0}),
        ("max_bits_per_byte_ratio", 1.3, 1.29, {"oak": 1.3}),
        ("max_accuracy_drop", 0.01, 0.009, {"leaves": 0.01}),
        ("max_task_accuracy_drop", 0.05, 0.04, {"piqa": 0.05, "boolq": -0.01, "task_mean": 0.02}),
        ("max_answer_kl", 0.5, 0.49, {"chats": 0.5, "prompts": 0.25}),
        ("max_length_ratio", 2.0, 1.99, {"chats": 2.0, "prompts": 1.25}),
        ("max_latency_ratio", 0.85, 0.79, {None: 0.8}),
        ("max_bytes", 2500, 2499, {None: 2500}),
        ("max_bytes_ratio", 0.625, 0.62, {None: 0.625}),
        ("max_parameters", 600, 599, {None: 600}),
        ("max_export_kl", 0.004, 0.003, {"model-F16.gguf": 0.0, "model-Q8_0.gguf": 0.004}),
    ],
)
def test_every_gate_reads_its_figure_and_without_it_is_missed(
    gate: str, at: float, below: float, figures: dict[str | None, float]
) -> None:
    kept = evaluate_gates(Gates.model_validate({gate: at}), METRICS)
    assert {each.on: each.figure for each in kept} == pytest.approx(figures) and all(each.kept for each in kept)
    (missed,) = [each for each in evaluate_gates(Gates.model_validate({gate: below}), METRICS) if not each.kept]
    assert (missed.gate, missed.limit, missed.param) == (gate, below, f"gates.{gate}")
    assert missed.message.endswith(f"the gate allows {below:,}")
    (unknown,) = evaluate_gates(Gates.model_validate({gate: at}), Metrics(latency=None))
    assert (unknown.figure, unknown.on, unknown.kept) == (None, None, False) and "not measured" in unknown.message


@pytest.mark.parametrize(("ratio", "kept"), [(2.4, True), (2.41, False), (math.nan, False), (None, False)])
def test_a_gate_is_missed_on_any_text_beyond_its_limit_and_by_what_is_no_number(
    ratio: float | None, kept: bool
) -> None:
    metrics = Metrics(perplexity={"oak": Perplexity(ratio=1.0), "elm": Perplexity(ratio=ratio)})
    results = evaluate_gates(Gates(max_perplexity_ratio=2.4), metrics)
    assert [each.kept for each in results] == [True, kept]
    assert results[1].figure == (ratio if ratio == ratio else None), "what is no number is not written into JSON"
    missed = missed_gates(results)
    assert (missed is None) == kept
    if missed is not None:
        assert (missed.code, missed.param, missed.retryable) == ("gate_missed", "gates.max_perplexity_ratio", False)
        assert "elm" in missed.message and "oak" not in missed.message and "2.4" in missed.message


@pytest.mark.parametrize(
    ("spread", "limit", "kept", "said"),
    [
        (0.2, 0.97, True, "the gate allows 0.97"),
        (0.2, 0.95, False, "noise ± 20.0%); the gate allows 0.95, which is unproven: with this noise 0.7917 keeps it"),
        (0.01, 0.85, True, "noise ± 5.0%); the gate allows 0.85"),
        (0.01, 0.81, False, "which is unproven: with this noise 0.7714 keeps it"),
    ],
)
def test_a_gate_on_the_latency_is_kept_only_beyond_the_noise(
    spread: float, limit: float, kept: bool, said: str
) -> None:
    metrics = Metrics(latency=Latency(dense_ms=10.0, pruned_ms=8.0, spread=spread))
    (result,) = evaluate_gates(Gates(max_latency_ratio=limit), metrics)
    assert (result.figure, result.kept, result.margin) == (0.8, kept, max(spread, 0.05))
    assert result.message.endswith(said)


def test_all_that_are_missed_are_reported() -> None:
    gates = Gates(max_perplexity_ratio=1.5, max_latency_ratio=0.5, max_bytes_ratio=0.7)
    target = GateResult(
        gate="target.parameters", limit=500, figure=600, kept=False, message="target.parameters: 500 was asked for"
    )
    results = [*evaluate_gates(gates, METRICS), target]
    missed = missed_gates(results)
    assert missed is not None and missed.param == "gates.max_perplexity_ratio"
    assert missed.message == (
        "the perplexity ratio on oak is 2; the gate allows 1.5; "
        "the latency ratio is 0.8 (10 ms dense, 8 ms pruned, noise ± 5.0%); the gate allows 0.5; "
        "target.parameters: 500 was asked for"
    )
    report = gates_report(gates, results).document()
    assert report["missed"] == missed.message and report["max_latency_ratio"] == 0.5 and report["max_bytes"] is None
    assert [row.kept for row in gates_report(gates, results).rows] == [False, False, True, False]
    assert target.param == "target.parameters"


@pytest.mark.parametrize(
    ("gate", "evaluation", "is_classifier", "said"),
    [
        ("max_perplexity_ratio", {"tasks": ["piqa"]}, False, 'add "evaluation": {"datasets": ["NAME"]}'),
        ("max_answer_kl", {"datasets": ["oak"]}, False, 'add "evaluation": {"answers": {"datasets": ["NAME"]}}'),
        ("max_accuracy_drop", {}, True, 'images to measure on: add "evaluation": {"datasets": ["NAME"]}'),
        ("max_accuracy_drop", {"datasets": ["oak"]}, False, "not for this model: use max_perplexity_ratio"),
        ("max_perplexity_ratio", {"datasets": ["oak"]}, True, "is only for language models"),
        ("max_export_kl", {"datasets": ["oak"]}, False, 'add "output": {"exports": '),
        ("beats_dense_at_equal_bytes", {"tasks": ["piqa"]}, False, 'add "evaluation": {"datasets": ["NAME"]}'),
    ],
)
def test_a_gate_that_nothing_will_measure_is_refused_with_what_to_add(
    gate: str, evaluation: dict[str, Any], is_classifier: bool, said: str
) -> None:
    task = MODEL_TASKS["image-classification" if is_classifier else "language-model"]
    limit = gate == "beats_dense_at_equal_bytes" or 0.5
    with pytest.raises(InvalidRequest) as refused:
        require_measured(Gates.model_validate({gate: limit}), Evaluation.model_validate(evaluation), task)
    assert refused.value.param == f"gates.{gate}" and said in refused.value.message
    for always in ("max_latency_ratio", "max_bytes", "max_bytes_ratio", "max_parameters"):
        require_measured(Gates.model_validate({always: 1}), Evaluation(), task)


@pytest.mark.parametrize(("difference", "kept"), [(-0.2, True), (0.02, True), (0.021, False)])
def test_a_model_beats_the_dense_file_unless_it_is_worse_by_more_than_the_error(difference: float, kept: bool) -> None:
    outcome = "within error" if abs(difference) <= 0.02 else "worse" if difference > 0 else "better"
    compared = {
        "dense": "dense in int4",
        "dense_bytes": 9,
        "difference": difference,
        "stderr": 0.02,
        "outcome": outcome,
    }
    metrics = Metrics.model_validate({"equal_bytes": {"oak": compared}})
    (row,) = evaluate_gates(Gates(beats_dense_at_equal_bytes=True), metrics)
    assert (row.on, row.figure, row.limit, row.kept) == ("oak", difference, 0.02, kept)
    assert "dense model in int4 (9 bytes)" in row.message
    assert evaluate_gates(Gates(beats_dense_at_equal_bytes=False), metrics) == []
