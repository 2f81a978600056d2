"""What the portal says of figures and errors: plain words that claim no more than was measured."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.portal.views.answers import answer_rows, pieces_of
from api.portal.views.error_advice import ADVICE, title_of
from api.portal.views.job_page import stage_times
from api.portal.views.layer_table import by_kind, chart_height, layer_figures
from api.portal.views.metric_curves import MOST_POINTS, curves_of
from api.portal.views.picture import result_panels
from api.portal.views.result_cards import Row, cards, evaluation_rows
from api.portal.views.summary import summarise
from core.pipeline.reports.model_card import model_card
from core.pipeline.reports.report import Report
from core.pipeline.reports.shape_chart import shape_chart
from core.pipeline.reports.verdict import verdict_on
from core.service.jobs.gates import evaluate_gates
from secateur.cli.output import print_metrics
from secateur.metrics_table import figures
from secateur_wire import errors
from secateur_wire.job_body import Gates
from secateur_wire.jobs import JobAttempt, JobEvent
from secateur_wire.metrics import NOT_WELL, Metrics
from secateur_wire.progress import between, seconds_range
from secateur_wire.states import AttemptOutcome
from tests.answers import compared
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


def test_added_files_have_their_bytes_and_speed_beside_the_dense_model_s() -> None:
    rates = {
        "prefill": {"dense": 100.0, "pruned": 104.0, "spread": 0.02, "noise": 0.05},
        "decode": {"dense": 20.0, "pruned": 26.0, "spread": 0.02, "noise": 0.05},
    }
    speed = rates | {"prompt_tokens": 128, "decoded_tokens": 32, "rounds": 5, "threads": 2, "dense_bytes": 2_000_000}
    exported = {"file": "m.gguf", "format": "gguf", "type": "Q8_0", "bytes": 1_500_000, "kl": 0.0012, "top_1": 0.99}
    without, with_speed = (metrics(exports=[exported | more]) for more in ({}, {"speed": speed}))
    assert [row.pruned for row in evaluation_rows(without) if "m.gguf" in row.what] == ["1.5 MB"]
    rows = [row for row in evaluation_rows(with_speed) if "m.gguf" in row.what]
    likeness = "KL divergence 0.0012 from the artifact; the same likeliest token for 99.0 %"
    assert rows == [
        Row("m.gguf", "2.0 MB", "1.5 MB", "× 0.750", likeness),
        Row(
            "m.gguf, reading a prompt of 128 tokens",
            "100 tokens/s", "104 tokens/s", "no difference seen", "× 1.04, within the noise of ± 5 %",
        ),
        Row("m.gguf, writing after it", "20.0 tokens/s", "26.0 tokens/s", "× 1.30", "beyond the noise of ± 5 %"),
    ]  # fmt: skip
    assert [(each.label, each.value) for each in cards(with_speed) if "Q8_0" in each.label] == [
        ("Tokens/s, Q8_0, pruned ÷ dense", "× 1.30")
    ]
    shown = [figure.row for figure in figures(with_speed) if figure.on == "m.gguf"]
    assert shown[1:] == [
        ("prefill, tokens/s on m.gguf", "100", "104", "× 1.04 ± 5.0%, unproven"),
        ("decode, tokens/s on m.gguf", "20", "26", "× 1.3 ± 5.0%"),
    ]


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
            {},
            "As large as before with 50 % of the prunable weights zero, perplexity 25.0 → 27.4, "
            "no difference seen in time (± 5 %).",
        ),
        (
            STRUCTURED,
            SMALLER,
            {"bytes": {"dense": 2000, "artifact": 1400}, "latency": {"dense_ms": 100, "pruned_ms": 70, "spread": 0.1}},
            "1.4× smaller, perplexity 25.0 → 27.4, 1.4× faster.",
        ),
        (
            STRUCTURED,
            SMALLER,
            {"bytes": {"dense": 2000, "artifact": 1900}, "latency": {"dense_ms": 100, "pruned_ms": 92, "spread": 0.1}},
            "5 % smaller, perplexity 25.0 → 27.4, no difference seen in time (± 10 %).",
        ),
        (
            STRUCTURED,
            SMALLER,
            {"bytes": {"dense": 2000, "artifact": 1400}, "latency": None, "perplexity": {}},
            "1.4× smaller, quality not measured, speed not measured.",
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
        (
            MASKED,
            NOT_SMALLER,
            {
                "perplexity": {},
                "tasks": {"boolq": accuracy(0.62, 0.52), "piqa": accuracy(0.6, 0.5)},
                "task_mean": {"dense": 0.61, "pruned": 0.51},
                "accuracy": {name: accuracy(0.98, 0.9) for name in ("a", "b", "c")},
            },
            "As large as before with 50 % of the prunable weights zero, accuracy on a 98.0 % → 90.0 %, accuracy on b "
            "98.0 % → 90.0 % and 1 more, accuracy on 2 tasks 61.0 % → 51.0 %, no difference seen in time (± 5 %).",
        ),
        (
            {"method": "sensitivity"},
            {},
            {"sensitivity": {"layers": 6, "rates": 3, "most_sensitive": "model.layers.0"}},
            "Nothing was pruned: of 6 layers, each measured alone at 3 rates, model.layers.0 loses most.",
        ),
    ],
)
def test_a_verdict_is_one_sentence_of_what_was_measured(
    recipe: dict[str, Any], report: dict[str, Any], others: dict[str, Any], sentence: str
) -> None:
    assert summarise(recipe, metrics(**others), Report.model_validate(report), None).sentence == sentence


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


def test_the_comparison_at_equal_bytes_is_one_line_of_page_and_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    worse = {
        "dense": "dense as gguf Q8_0",
        "dense_bytes": 1000,
        "difference": 0.021,
        "stderr": 0.004,
        "outcome": "worse",
    }
    measured = metrics(equal_bytes={"wiki": worse, "code": {"reason": "no such file was measured"}})
    known = "worse than the dense model as gguf Q8_0 (1,000 bytes) by 0.021 ± 0.004 bits per byte"
    points = dict(summarise(MASKED, measured, NOT_SMALLER, None).points)
    assert points["At equal bytes"] == f"On wiki {known}; on code unknown: no such file was measured"
    print_metrics(measured)
    assert f"on wiki {known}" in " ".join(capsys.readouterr().out.split())


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


@pytest.mark.parametrize("error", list(_tree(errors.ApiError)), ids=lambda error: error.__name__)
def test_every_error_a_job_can_end_with_has_advice(error: type[errors.ApiError]) -> None:
    assert (error.code in ADVICE) != (error.code in ENDS_NO_JOB), f"{error.__name__}: {error.code}"
    assert title_of(error.code) == error.title


def test_there_is_no_advice_for_what_is_no_error() -> None:
    assert set(ADVICE) <= {error.code for error in _tree(errors.ApiError)}


def test_an_estimated_time_is_a_range() -> None:
    assert seconds_range(100.0, None) == (100.0, 100.0)
    low, high = seconds_range(100.0, 0.3)
    assert low * high == pytest.approx(100.0**2) and high == pytest.approx(163.8, abs=0.1)
    assert seconds_range(100.0, 0.0)[1] > 110.0, "no time is exact"


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (780, 1500, "13 to 25 min"), (50, 240, "50 s to 4 min"), (0.2, 1500, "up to 25 min"), (60, 60, "about 60 s"),
        (5700, 9000, "1.6 to 2.5 h"), (0, 0.5, "about 1 s"),
    ],
)  # fmt: skip
def test_a_range_of_time_is_said_in_few_words(low: float, high: float, words: str) -> None:
    assert between(low, high) == words


def test_stages_are_timed_by_their_events_while_an_attempt_runs() -> None:
    start = datetime(2026, 3, 2, tzinfo=UTC)
    attempt = JobAttempt(
        attempt=2, worker_id="w", queue="default", started_at=start, ended_at=None, outcome=None, error_code=None,
        stages=None, needs=None, measured=None,
    )  # fmt: skip
    events = [
        JobEvent(sequence=n, type="stage", created_at=start + timedelta(seconds=at), attempt=2, data={"stage": stage})
        for n, (stage, at) in enumerate([("open", 2), ("prune", 3), ("evaluate", 10), ("prune", 11)])
    ]
    times = {each.stage: each for each in stage_times(attempt, events, start + timedelta(seconds=20))}
    assert [times[stage].seconds for stage in ("fetch", "open", "prune", "evaluate")] == [2.0, 1.0, 16.0, 1.0]
    assert times["prune"].running_since == start + timedelta(seconds=11)
    assert times["open"].running_since is None and times["verify"].seconds is None
    ended = attempt.model_copy(update={"stages": {"fetch": 1.5}, "ended_at": start, "outcome": "failed"})
    assert [each.seconds for each in stage_times(ended, [], start)][:2] == [1.5, None]


@pytest.mark.parametrize("has_events", [True, False], ids=["events", "events removed"])
@pytest.mark.parametrize(
    ("outcome", "error_code", "cut_short"),
    [
        ("cancelled", None, ["prune"]),
        ("failed", "out_of_memory", ["prune"]),
        ("failed", "gate_missed", []),
        ("succeeded", None, []),
    ],
)
def test_the_stage_an_attempt_was_stopped_in_is_not_called_done(
    outcome: AttemptOutcome, error_code: str | None, cut_short: list[str], has_events: bool
) -> None:
    start = datetime(2026, 3, 2, tzinfo=UTC)
    attempt = JobAttempt(
        attempt=1, worker_id="w", queue="default", started_at=start, ended_at=start + timedelta(seconds=9),
        outcome=outcome, error_code=error_code, stages={"fetch": 1.0, "prune": 6.0, "open": 2.0}, needs=None,
        measured=None,
    )  # fmt: skip
    events = [
        JobEvent(sequence=n, type="stage", created_at=start + timedelta(seconds=n), attempt=1, data={"stage": stage})
        for n, stage in enumerate(["open", "prune"], 1)
    ]
    times = stage_times(attempt, events if has_events else [], start + timedelta(seconds=20))
    assert [each.stage for each in times if each.is_cut_short] == cut_short
    assert not any(each.running_since for each in times)


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    events = [
        JobEvent(
            sequence=n, type="metric", created_at=datetime.now(UTC), attempt=1,
            data={"name": "recovery_loss", "step": n, "value": 1.0 if n else None},
        )
        for n in range(3 * MOST_POINTS)
    ]  # fmt: skip
    (curve,) = curves_of(events)
    assert curve.left_out and len(curve.points) <= MOST_POINTS and curve.points[-1].step == 3 * MOST_POINTS - 1


def test_what_only_counts_is_no_curve() -> None:
    counted = JobEvent(
        sequence=1, type="metric", created_at=datetime.now(UTC), attempt=1,
        data={"name": "dense_evaluation", "step": 0, "value": 1.0},
    )  # fmt: skip
    assert curves_of([counted]) == []


def test_layers_of_every_kind_of_report_have_a_row() -> None:
    linear = {"name": "a.q_proj", "layer": 0, "out_features": 4, "in_features": 2, "sparsity": 0.5, "zeros": 4}
    group = {"name": "heads 0", "layer": 0, "kind": "heads", "before": 8, "after": 6, "removed_parameters": 9}
    filters = {**linear, "name": "conv", "kept_shape": [3, 2, 3, 3]}
    report = {"layers": [linear, group, filters], "method": {"reconstruction_errors": {"conv": 0.25}}}
    figures = layer_figures(Report.model_validate(report))
    assert [each.shape for each in figures] == ["4 × 2", "8 → 6 heads", "4 × 2 → 3 × 2 × 3 × 3"]
    assert [each.sparsity for each in figures] == [0.5, 0.25, 0.5]
    assert [each.error for each in figures] == [None, None, 0.25]
    assert set(by_kind(figures)) == {"q_proj", "heads", "conv"}
    many = [{**linear, "name": f"layer{number}"} for number in range(9)]
    assert list(by_kind(layer_figures(Report.model_validate({"layers": many})))) == [""]


def test_the_page_leaves_as_much_height_as_the_picture_of_the_layers_has() -> None:
    row = {"name": "layer 0", "layer": 0, "kind": "experts", "before": 3, "after": 2, "removed_parameters": 9}
    routing = {"tokens": [5, 1, 4], "tokens_left": [4, 6], "error": 0.3, "refitted": 0.1}
    for each, height in ((None, 230), (routing, 380)):
        experts = [{"name": "layer 0", "layer": 0, "kept": [0, 2], "scores": [], "routing": each}]
        report = Report.model_validate({"layers": [row], "experts": experts})
        size = ElementTree.fromstring(shape_chart(report, title="Layers")).attrib["viewBox"].split()
        assert chart_height(report) == height == round(800 * float(size[3]) / float(size[2]))


def test_the_summary_of_a_model_that_answers_nonsense_says_so_first() -> None:
    measured = metrics(answers={"chats": compared(6.0, 0.3, score=(0.8, 0.1))})
    verdict = verdict_on("wanda", "unstructured", 0.5, measured)
    sentence = summarise(MASKED, measured, NOT_SMALLER, verdict).sentence
    assert sentence.startswith("No longer answers; by perplexity close to dense: ")
    rows = {row.what: row for row in answer_rows(measured)}
    assert rows["KL a token along the dense answers, chats"].pruned == "6 ± 0.01"
    assert rows["length of answers, chats"].change == "× 0.3 ± 0.02"
    assert (rows["right answers, chats"].dense, rows["right answers, chats"].pruned) == ("80%", "10%")
    assert {figure.name for figure in figures(measured)} >= {"answer_kl", "answer_length", "answer_score"}


@pytest.mark.parametrize(("text", "other"), [("", "a"), ("a b  c\n", "a x c"), ("same words", "same words"), ("a", "")])
def test_pieces_make_the_whole_answer_and_what_is_not_marked_is_in_both(text: str, other: str) -> None:
    pieces = pieces_of(text, other)
    assert "".join(piece.text for piece in pieces) == text
    same = [word for piece in pieces if not piece.differs for word in piece.text.split()]
    assert all(word in other.split() for word in same)
    assert not any(piece.differs for piece in pieces) or text != other
