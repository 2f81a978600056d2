"""What the portal says of figures and errors: plain words that claim no more than was measured."""

from collections.abc import Iterator
from typing import Any

import pytest

from api.portal.views.error_advice import ADVICE, title_of
from api.portal.views.outcome import estimates_from, expected_quality, outcome_figures
from api.portal.views.picture import result_panels
from api.portal.views.result_cards import evaluation_rows
from api.portal.views.summary import summarise
from core.pipeline.reports.model_card import model_card
from core.pipeline.reports.report import Report
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
