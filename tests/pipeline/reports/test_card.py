"""The model card of a language model says no more than was measured."""

from pathlib import Path
from typing import Any

import pytest

from core.pipeline.reports.model_card import model_card
from core.pipeline.reports.report import Report
from core.pipeline.reports.source_card import NO_FACTS, SourceFacts, facts_of_card
from tests.recipes import recipe_of


def card(source: SourceFacts = NO_FACTS, **latency: Any) -> str:
    metrics: dict[str, Any] = {
        "sparsity": {"prunable": 0.3, "model": 0.2},
        "parameters": {"dense": 1000, "nonzero": 800},
        "bytes": {"dense": 2000, "artifact": 1600},
    }
    if latency:
        metrics["latency"] = {"sequence_length": 512, "device": "cpu", **latency}
    return model_card(recipe_of("wanda"), Report.model_validate({"metrics": metrics}), source)


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
