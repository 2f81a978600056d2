"""What the portal says of figures and errors: plain words that claim no more than was measured."""

from collections.abc import Iterator
from typing import Any

import pytest

from api.portal.views.error_advice import ADVICE, title_of
from api.portal.views.outcome import estimates_from, expected_quality, outcome_figures
from api.portal.views.picture import result_panels
from api.portal.views.result_cards import Row, evaluation_rows
from api.portal.views.summary import summarise
from core.pipeline.reports.model_card import model_card
from core.pipeline.reports.report import Report
from core.pipeline.reports.verdict import verdict_on
from core.service.jobs.gates import evaluate_gates
from secateur.metrics_table import figures
from secateur_wire import errors
from secateur_wire.job_body import Gates
from secateur_wire.metrics import NOT_WELL, Metrics
from secateur_wire.plans import Plan, PlanFigure
from tests.recipes import recipe_of

MASKED = {"method": "wanda", "pattern": "unstructured"}
STRUCTURED = {"method": "loraprune", "pattern": "structured"}
NOT_SMALLER = Report(artifact={"parameters": 1000})
SMALLER = Report(artifact={"parameters": 700})


def metrics(**others: Any) -> Metrics:
    figures = {
        "perplexity": {"wiki": {"dense": 25.0, "pruned": 27.4, "ratio": 1.096, "sequence_length": 512}},
        "sparsity": {"prunable": 0.5, "model": 0.4},
        "parameters": {"dense": 1000, "nonzero": 600},
        "bytes": {"dense": 2000, "artifact": 2000},
        "latency": {"dense_ms": 100.0, "pruned_ms": 101.0, "spread": 0.02},
    }
    return Metrics.model_validate(figures | others)


def accuracy(dense: float, pruned: float, error: float = 0.01) -> dict[str, Any]:
    return {"dense": dense, "pruned": pruned, "dense_stderr": error, "pruned_stderr": error}


def test_a_speed_whose_noise_is_more_than_half_of_it_is_called_not_measured_everywhere() -> None:
    rate = {"dense": 20.0, "pruned": 60.0, "spread": 7.069, "noise": 7.069}
    speed = {"prefill": rate, "decode": rate, "prompt_tokens": 64, "decoded_tokens": 32, "rounds": 3, "threads": 1}
    own = {name: speed[name] for name in ("prompt_tokens", "decoded_tokens", "rounds", "threads")}
    own |= {"prefill": 9.0, "decode": 4.0, "prefill_noise": 0.2, "decode_noise": 3.01}
    file = {"file": "m.gguf", "format": "gguf", "type": "Q8_0", "bytes": 3, "kl": 0.1, "top_1": 0.9, "predictions": 9}
    copy = {"name": "dense as gguf Q8_0", "output": {}, "bytes": 3, "ratio": 0.5, "basis": "measured"}
    result = metrics(
        latency={"dense_ms": 100.0, "pruned_ms": 20.0, "spread": 7.069, "noise": 7.069},
        exports=[file | {"speed": speed | {"dense_bytes": 6}}, file | {"file": "n.gguf", "own_speed": own}],
        alternatives=[copy | {"decode": 4.0, "decode_noise": 3.01}, copy | {"decode": 9.0, "decode_noise": 0.2}],
    )
    summary = summarise(STRUCTURED, result, SMALLER, None)
    recipe = recipe_of("wanda", sparsity=0.5)
    (gate,) = evaluate_gates(Gates(max_latency_ratio=0.9), result)
    places = {
        "page": [summary.sentence, *summary.remarks, *(text for _, text in summary.points)],
        "table": [f"{each.change} {each.pruned} {each.note}" for each in evaluation_rows(result)],
        "command line": [" ".join(each.row) for each in figures(result)],
        "card": model_card(recipe, Report(metrics=result)).splitlines(),
        "gate": [gate.message],
        "bars": [bar.value for panel in result_panels(result, None, ("dense", "pruned")) for bar in panel.bars],
    }
    for place, lines in places.items():
        shown = "\n".join(lines)
        assert NOT_WELL in shown and "706" not in shown and "707" not in shown and "301" not in shown, place
    assert "9 tokens/s written ± 20.0%" in "\n".join(places["page"]) and "9 ± 20.0%" in "\n".join(places["card"])


def test_a_table_has_a_row_for_everything_that_was_measured_of_both_models() -> None:
    perplexity = {"dense": 20.0, "pruned": 21.0, "ratio": 1.05, "ratio_stderr": 0.1, "sequence_length": 512}
    times = {"dense_ms": 10.0, "pruned_ms": 8.0, "spread": 0.02, "engine": "torch", "device": "cpu"}
    bits = {"dense": 1.0, "before_recovery": 1.14, "pruned": 1.02, "ratio": 1.02, "bytes": 4321, "tokens": 1022}
    both = metrics(
        perplexity={"wiki": perplexity | {"before_recovery": 30.0, "bits_per_byte": bits}},
        accuracy={"digits": accuracy(0.9, 0.8) | {"samples": 500, "before_recovery": 0.5, "dense_loss": 0.3}},
        tasks={name: accuracy(0.5, 0.4) | {"samples": 100, "metric": "acc"} for name in ("boolq", "piqa")},
        task_mean={"dense": 0.5, "pruned": 0.4},
        flops={"dense": 2e9, "pruned": 1e9},
        latency=times | {"rows": [times | {"batch": 1}, times | {"batch": 32, "pruned_ms": None}]},
    )
    rows = {row.what: row for row in evaluation_rows(both)}
    assert list(rows) == [
        "perplexity, wiki", "bits per byte, wiki", "accuracy, digits", "loss, digits", "boolq (acc)", "piqa (acc)",
        "mean of 2 tasks", "FLOPs for an image", "1 image at once, torch on cpu",
    ]  # fmt: skip
    assert rows["bits per byte, wiki"] == Row(
        "bits per byte, wiki", "1.00", "1.02", "× 1.02",
        "1,022 predicted tokens of 4,321 bytes; 1.14 before recovery",
    )  # fmt: skip
    assert rows["perplexity, wiki"].note == "windows of 512 tokens; 30.0 before recovery; within its error"
    assert rows["accuracy, digits"].note == "500 images; 50.00 % before recovery"
    assert (rows["loss, digits"].pruned, rows["loss, digits"].change) == ("no longer a number", "–")
    assert rows["mean of 2 tasks"].change == "-10.00 points"
    assert rows["1 image at once, torch on cpu"].note == "beyond the noise of ± 5 %"
    decoding = metrics(latency={"decode_dense_ms": 4.0, "decode_pruned_ms": 5.0})
    assert [row.change for row in evaluation_rows(decoding)][1:] == ["× 1.25"]
    noisy = metrics(latency={"decode_dense_ms": 4.0, "decode_pruned_ms": 5.0, "spread": 0.5})
    assert [row.change for row in evaluation_rows(noisy)][1:] == ["no difference seen"]
    assert [each.name for each in figures(both)] == [
        "perplexity_before_recovery", "perplexity", "bits_per_byte_before_recovery", "bits_per_byte",
        "accuracy_before_recovery", "accuracy", "loss", "task_accuracy", "task_accuracy", "task_mean", "parameters",
        "flops", "bytes", "latency",
    ]  # fmt: skip
    loss = next(each for each in figures(both) if each.name == "loss")
    assert loss.document() == {
        "figure": "loss", "on": "digits", "unit": "number", "dense": 0.3, "pruned": None, "ratio": None
    }  # fmt: skip


def test_zeros_that_save_nothing_and_gains_that_are_noise_are_said() -> None:
    (stored,) = summarise(MASKED, metrics(), NOT_SMALLER, None).remarks
    assert "files no smaller" in stored and "packed" in stored and "kernels for sparse weights" in stored
    (pattern,) = summarise(MASKED | {"pattern": "2:4"}, metrics(), NOT_SMALLER, None).remarks
    assert "kernels for 2:4" in pattern
    noisy = metrics(latency={"dense_ms": 100.0, "pruned_ms": 95.0, "spread": 0.08})
    (noise,) = summarise(STRUCTURED, noisy, SMALLER, None).remarks
    assert "tells no difference" in noise and "8 %" in noise


def test_labels_say_what_their_figures_do() -> None:
    def labels(recipe: dict[str, Any], **others: Any) -> list[str]:
        return [label for label, _ in summarise(recipe, metrics(**others), SMALLER, None).points][:2]

    assert labels(MASKED) == ["No smaller", "No faster"]
    slower = {"dense_ms": 100.0, "pruned_ms": 130.0, "spread": 0.02}
    assert labels(STRUCTURED, bytes={"dense": 2000, "artifact": 2100}, latency=slower) == ["Larger", "Slower"]
    faster = {"dense_ms": 100.0, "pruned_ms": 70.0, "spread": 0.02}
    assert labels(STRUCTURED, bytes={"dense": 2000, "artifact": 1400}, latency=faster) == ["Smaller", "Faster"]
    assert labels(STRUCTURED, latency=None)[1] == "Speed"
    (size, time, *_) = (text for _, text in summarise(MASKED, metrics(), NOT_SMALLER, None).points)
    assert size.startswith("2.0 kB → 2.0 kB") and time == "100 → 101 ms a forward (no difference seen)"


def test_a_result_begins_with_a_bar_for_each_figure_of_both_models() -> None:
    verdict = verdict_on("wanda", "unstructured", 0.5, metrics())
    panels = {panel.title: panel for panel in result_panels(metrics(), verdict, ("Dense", "Pruned"))}
    assert [panel.words for panel in panels.values()] == [
        "as large as before with 50 % of the prunable weights zero", "no difference seen", "close to dense",
    ]  # fmt: skip
    dense, pruned = panels["Speed"].bars
    assert (dense.value, pruned.value) == ("100 ms", "101 ms ± 5.1 ms")
    assert dense.noise is None and pruned.noise is not None
    assert pruned.noise[0] < dense.length < pruned.noise[1] == 100.0, "its noise reaches over the end of the other"
    far = metrics(latency=None, perplexity={"wiki": {"dense": 25.0, "pruned": 2700.0, "ratio": 108.0}})
    _, speed, quality = result_panels(far, None, ("Dense", "Pruned"))
    assert [bar.value for bar in speed.bars] == ["not measured"] * 2
    assert [(bar.length, bar.is_cut) for bar in quality.bars] == [(25.0, False), (100.0, True)]
    accurate = metrics(perplexity={}, tasks={"boolq": accuracy(0.6, 0.5) | {"samples": 100}})
    *_, quality = result_panels(accurate, None, ("Dense", "Pruned"))
    assert quality.measure == "accuracy on boolq; longer is better"
    assert [bar.value for bar in quality.bars] == ["60.0 % ± 1.0 %", "50.0 % ± 1.0 %"]
    assert not result_panels(Metrics(), None, ("Dense", "Pruned"))


@pytest.mark.parametrize(
    ("recipe", "report", "others", "sentence"),
    [
        (
            MASKED,
            NOT_SMALLER,
            {"bytes": {"dense": 3100, "artifact": 3100, "packed": 1000}},
            "3.1× smaller, perplexity 25.0 → 27.4, no difference seen in time (± 5 %).",
        ),
        (
            MASKED,
            NOT_SMALLER,
            {"perplexity": {"wiki": {"dense": 25.0, "pruned": None, "ratio": None, "sequence_length": 8}}},
            "As large as before with 50 % of the prunable weights zero, perplexity 25.0 → no longer a number, "
            "no difference seen in time (± 5 %).",
        ),
        (
            MASKED,
            NOT_SMALLER,
            {
                "perplexity": {"wiki": {"dense": 25.0, "pruned": 26.0, "before_recovery": 41.2}},
                "tasks": {"boolq": accuracy(0.62, 0.615)},
                "bytes": {"dense": 1000, "artifact": 1100},
            },
            "10 % larger, perplexity 25.0 → 26.0 (41.2 before recovery), accuracy on boolq 62.0 % → 61.5 % (no "
            "difference within its error), no difference seen in time (± 5 %).",
        ),
    ],
)
def test_a_verdict_is_one_sentence_of_what_was_measured(
    recipe: dict[str, Any], report: dict[str, Any], others: dict[str, Any], sentence: str
) -> None:
    assert summarise(recipe, metrics(**others), Report.model_validate(report), None).sentence == sentence


def _tree(root: type[errors.ApiError]) -> Iterator[type[errors.ApiError]]:
    for child in root.__subclasses__():
        yield child
        yield from _tree(child)


ENDS_NO_JOB = {
    "idempotency_conflict", "offset_mismatch", "upload_refused", "unauthenticated", "forbidden", "slow_request",
    "payload_too_large", "range_not_satisfiable", "too_many", "rate_limited", "sweep_failed", "constraints_not_met",
    "unsafe_address", "no_artifact", "not_discovered", "destination_refused", "destination_unavailable",
    "publication_expired",
}  # fmt: skip
"""Of requests alone, of sweeps, webhooks and publications."""


def test_every_error_a_job_can_end_with_has_advice() -> None:
    for error in _tree(errors.ApiError):
        assert (error.code in ADVICE) != (error.code in ENDS_NO_JOB), f"{error.__name__}: {error.code}"
        assert title_of(error.code) == error.title


def planned(estimate: float, low: float | None = None, high: float | None = None, source: str = "jobs") -> PlanFigure:
    low, high = (estimate if each is None else each for each in (low, high))
    return PlanFigure(estimate=estimate, low=low, high=high, source=source, count=3, basis="3 jobs")


def plan(amount: float | None = 0.5, **others: Any) -> Plan:
    empty: dict[str, Any] = {"choices": [], "figures": {}, "points": [], "unknown": [], "warnings": []}
    return Plan.model_validate(
        {"model": "tiny", "goal": "speed", "amount": amount, "job": {}, "summary": ""} | empty | others
    )


@pytest.mark.parametrize(
    ("name", "known", "dense_bytes", "value", "band"),
    [
        ("perplexity_ratio", planned(1.25, 1.1, 1.4), None, "× 1.25", "1.10 to 1.40"),
        ("bits_per_byte_ratio", planned(1.05, 1.02, 1.1), None, "× 1.05", "1.02 to 1.10"),
        ("bytes_ratio", planned(0.5), None, "50 %", "50 %"),
        ("bytes_ratio", planned(0.5), 4_000_000, "2.0 MB", "50 % of 4.0 MB"),
        ("bytes_ratio", planned(0.5, 0.4, 0.6), 4_000_000, "2.0 MB", "40 to 60 % of 4.0 MB"),
        ("prefill_ratio", planned(0.5, 0.4, 0.8), None, "× 2.0", "1.2 to 2.5"),
        ("decode_ratio", planned(0.8), None, "× 1.2", "1.2"),
        ("seconds", planned(120, 60, 180), None, "2 min", "60 s to 3 min"),
    ],
)
def test_a_figure_has_its_value_and_the_range_it_should_lie_in(
    name: str, known: PlanFigure, dense_bytes: int | None, value: str, band: str
) -> None:
    (shown,) = outcome_figures(plan(figures={name: known}), dense_bytes)
    assert (shown.value, shown.range, shown.source) == (value, band, "your team's own jobs")


def test_what_is_not_known_is_said_and_no_figure_of_it_is_shown() -> None:
    nothing = plan(unknown=["decode_ratio: no job was timed."])
    assert outcome_figures(nothing, 1000) == [] and expected_quality(nothing) is None
    assert estimates_from(nothing) == "Estimates, not promises. Not known: writing speed: no job was timed."
    both = plan(figures={"seconds": planned(60), "bytes_ratio": planned(0.5, source="account")})
    assert estimates_from(both) == "Estimates, not promises, by your team's own jobs and what is counted or computed."
