"""Verdicts: the word that each figure gets, and what has to be measured for it; and cards, which say no more."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from core.measurements.measurement import Measurement
from core.pipeline.reports import verdict as verdicts
from core.pipeline.reports.model_card import model_card
from core.pipeline.reports.report import Report
from core.pipeline.reports.source_card import NO_FACTS, SourceFacts, facts_of_card
from core.pipeline.reports.verdict import KL_BANDS, LENGTH_BANDS, is_near_chance, verdict_on
from secateur_wire.metrics import Metrics
from tests.answers import compared
from tests.recipes import recipe_of


def perplexity(*ratios: float | None) -> Metrics:
    figures = {f"text-{n}": {"dense": 20.0, "pruned": r and 20.0 * r, "ratio": r} for n, r in enumerate(ratios)}
    return Metrics.model_validate({"perplexity": figures, "parameters": {"dense": 1000, "nonzero": 500}})


def accuracy(dense: float, pruned: float, error: float = 0.001) -> dict[str, Any]:
    return {"dense": dense, "pruned": pruned, "dense_stderr": error, "pruned_stderr": error}


def row(method: str, mean: float, deviation: float, **others: Any) -> Measurement:
    spread = {"mean": mean, "deviation": deviation, "seeds": 3}
    body = {
        "model": {"name": "oak", "family": "Llama", "parameters": 1000}, "method": method, "pattern": "unstructured",
        "parameters": {}, "calibration_tokens": 0, "sparsity": 0.5, "perplexity": {"in_domain": spread},
        "seconds": spread, "processor_seconds": spread, "peak_bytes": 1, "machine": "m", "threads": 1,
        "measured": date(2026, 3, 2), "releases": "r",
    }  # fmt: skip
    return Measurement.model_validate(body | others)


@pytest.mark.parametrize(
    ("ratios", "band"),
    [
        ([1.05], "as good as dense"),
        ([1.06], "close to dense"),
        ([1.2], "close to dense"),
        ([1.21], "noticeably worse"),
        ([2.0, 1.1], "noticeably worse"),
        ([1.1, 2.01], "much worse"),
        ([1635 / 24.4], "unusable"),
        ([1.0, None], "unusable"),
    ],
)
def test_the_worst_text_decides_the_word(ratios: list[float | None], band: str) -> None:
    verdict = verdict_on("wanda", "unstructured", 0.6, perplexity(*ratios))
    assert verdict is not None and (verdict.band, verdict.words) == (band, band)


@pytest.mark.parametrize(
    ("metrics", "band", "reason"),
    [
        (
            {"accuracy": {"digits": accuracy(0.98, 0.979, 0.004), "letters": accuracy(0.9, 0.87)}},
            "close to dense",
            "accuracy on letters fell by 3.0 points",
        ),
        (
            {"tasks": {"boolq": accuracy(0.62, 0.6, 0.05)}},
            "as good as dense",
            "accuracy on boolq fell by 2.0 points, which is within the error of measuring it",
        ),
        (
            {"tasks": {"a": accuracy(0.6, 0.3), "b": accuracy(0.6, 0.5)}, "task_mean": {"dense": 0.6, "pruned": 0.4}},
            "much worse",
            "accuracy on the mean of the tasks fell by 20.0 points",
        ),
    ],
)
def test_without_perplexity_accuracy_decides(metrics: dict[str, Any], band: str, reason: str) -> None:
    verdict = verdict_on("wanda", "unstructured", 0.5, Metrics.model_validate(metrics))
    assert verdict is not None and (verdict.band, verdict.reason) == (band, reason)


def test_a_dense_model_that_guesses_is_said_to_be_near_chance_first() -> None:
    figure = {"dense": 51_571.0, "pruned": 30.0, "ratio": 30 / 51_571, "chance": 49_152}
    verdict = verdict_on("wanda", "unstructured", 0.5, Metrics.model_validate({"perplexity": {"wiki": figure}}))
    assert verdict is not None and is_near_chance(verdict)
    assert verdict.words == "the dense model is near chance; as good as dense"


def test_a_difference_within_its_own_error_is_none_unless_it_is_large() -> None:
    said = {}
    for ratio, error in ((1.08, 0.09), (1.08, 0.07), (1.5, 0.6)):
        metrics = perplexity(ratio)
        metrics.perplexity["text-0"].ratio_stderr = error
        said[ratio, error] = verdict_on("wanda", "unstructured", 0.6, metrics)
    inside, outside, vague = said.values()
    assert inside is not None and (inside.words, inside.within_noise) == ("as good as dense", True)
    assert inside.reason.endswith("is 1.08 times the dense model's (± 0.09), which is within the error of measuring it")
    assert outside is not None and (outside.words, outside.within_noise) == ("close to dense", False)
    assert vague is not None and (vague.words, vague.within_noise) == ("noticeably worse", False)


def test_worse_than_random_needs_a_measurement_of_random(monkeypatch: pytest.MonkeyPatch) -> None:
    random = row("random", 90.0, 10.0)
    monkeypatch.setattr(verdicts, "measurements", lambda table: (random,) if table == "zeros" else ())
    said = {
        (sparsity, ratio): verdict_on("wanda", "unstructured", sparsity, perplexity(ratio))
        for sparsity in (0.5, 0.6)
        for ratio in (99.0, 101.0, None)
    }
    assert {key for key, each in said.items() if each is not None and each.worse_than_random} == {
        (0.5, 101.0),
        (0.5, None),
    }
    worse = said[0.5, 101.0]
    assert worse is not None and worse.words == "unusable, and worse than random would do"
    assert worse.reason.endswith("after removing as much at random it was measured to be 100 times the dense model's")
    own = verdict_on("random", "unstructured", 0.5, perplexity(200.0))
    assert own is not None and not own.worse_than_random
    beside = verdict_on("wanda", "unstructured", 0.6, perplexity(3.0, 1.5), {"text-1": 1.4, "text-0": 4.0})
    assert beside is not None and beside.words == "much worse, and worse than random would do"


@pytest.mark.parametrize(
    ("figures", "answers"),
    [
        (compared(0.0, 1.0), "still answers"),
        (compared(KL_BANDS[0], 1 / LENGTH_BANDS[0]), "still answers"),
        (compared(0.1, 1.9, error=0.5), "still answers"),
        (compared(KL_BANDS[0] + 0.01), "answers change"),
        (compared(0.1, 1.0, score=(0.8, 0.6)), "answers change"),
        (compared(0.1, 1.0, thought=1.5), "answers change"),
        (compared(KL_BANDS[1] + 0.01), "no longer answers"),
        (compared(0.1, 1.0, score=(0.8, 0.3)), "no longer answers"),
        (compared(None, 1.0, thought=6.0), "no longer answers"),
    ],
)
def test_answers_come_first_and_the_worst_figure_of_them_decides(figures: dict[str, Any], answers: str) -> None:
    metrics = perplexity(1.1).model_copy(
        update={"answers": Metrics.model_validate({"answers": {"easy": compared(0.0), "chats": figures}}).answers}
    )
    verdict = verdict_on("wanda", "unstructured", 0.6, metrics)
    assert verdict is not None and verdict.answers == answers
    assert verdict.words == f"{answers}; by perplexity close to dense"
    bands = {"still answers": "close to dense", "answers change": "noticeably worse", "no longer answers": "unusable"}
    assert verdict.band == bands[answers], "the worse of both"
    alone = verdict_on("wanda", "unstructured", 0.6, Metrics(answers=metrics.answers))
    assert alone is not None and (alone.words, alone.figure) == (answers, "answers")


def card(source: SourceFacts = NO_FACTS, **latency: Any) -> str:
    metrics: dict[str, Any] = {
        "sparsity": {"prunable": 0.3, "model": 0.2},
        "parameters": {"dense": 1000, "nonzero": 800},
        "bytes": {"dense": 2000, "artifact": 1600},
    }
    if latency:
        metrics["latency"] = {"sequence_length": 512, "device": "cpu", **latency}
    return model_card(recipe_of("wanda"), Report.model_validate({"metrics": metrics}), source)


@pytest.mark.parametrize("unknown", ["parameters", "bytes"])
def test_what_was_not_measured_has_no_row_on_the_card(unknown: str) -> None:
    known = {"parameters": {"dense": 1000, "nonzero": 800}, "bytes": {"dense": 2000, "artifact": 1600}}
    del known[unknown]
    share = {"prunable": 0.3, "model": 0.2}
    shown = model_card(recipe_of("wanda"), Report.model_validate({"metrics": {"sparsity": share, **known}}))
    assert ("parameters not zero" in shown, "bytes of weights" in shown) == ("parameters" in known, "bytes" in known)


@pytest.mark.parametrize(
    ("matter", "lines"),
    [
        ("---\nlicense: Apache-2.0\nbase_model: 'org/base'\ntags: [x]\n---\n# Title", ["apache-2.0", "org/base"]),
        ("---\nlicense: apache-2.0\n---\nbase_model: org/base\n", ["apache-2.0"]),
        ('---\nlicense: "a b"\nbase_model: ../../x\n---\n', []),
        ("license: mit\n", []),
        ("", []),
    ],
)
def test_the_card_repeats_what_the_source_states_and_invents_nothing(
    matter: str, lines: list[str], tmp_path: Path
) -> None:
    assert facts_of_card(tmp_path) == NO_FACTS
    (tmp_path / "README.md").write_text(matter)
    facts = facts_of_card(tmp_path)
    assert [line.partition(": ")[2] for line in facts.lines] == lines
    front = card(facts).split("---")[1]
    assert [line for line in front.splitlines() if line.startswith(("license", "base_model"))] == facts.lines
    assert "tags: [pruning, wanda]" in front


@pytest.mark.parametrize(
    ("pruned_ms", "spread", "said"),
    [
        (90.3, 0.12, "90.3 ms (× 0.903 ± 12.0%, unproven) |"),
        (96.0, 0.001, "96.0 ms (× 0.960 ± 5.0%, unproven) |"),
        (70.0, 0.12, "70.0 ms (× 0.700 ± 12.0%) |"),
        (70.0, 7.069, "70.0 ms (not measured well enough) |"),
    ],
)
def test_a_ratio_of_times_stands_beside_its_noise(pruned_ms: float, spread: float, said: str) -> None:
    shown = card(dense_ms=100.0, pruned_ms=pruned_ms, spread=spread)
    assert f"| prefill of 512 tokens on cpu | 100.0 ms | {said}" in shown
