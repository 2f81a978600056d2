"""The model card of a language model says no more than was measured, and of each kind of pruning what it did."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.pipeline.reports.model_card import model_card
from core.pipeline.reports.report import Report
from core.pipeline.reports.source_card import NO_FACTS, SourceFacts, facts_of_card
from tests.recipes import recipe_of

RECOVERY: dict[str, Any] = {
    "method": "lora", "trained": "lora", "trained_parameters": 1000, "steps": 200, "tokens": 4000,
    "texts": [{"name": "articles"}], "sparsity": {"before": 0.000316, "after": 0.000316},
}  # fmt: skip
GROUPS: list[dict[str, Any]] = [
    {"name": f"layer {layer} {kind}", "layer": layer, "kind": kind, "before": before, "after": after}
    for layer in range(2)
    for kind, before, after in (("heads", 9, 6), ("channels", 1536, 1024))
]


def card(
    pattern: str,
    *,
    layers: list[dict[str, Any]] = GROUPS,
    source: SourceFacts = NO_FACTS,
    exports: Sequence[dict[str, Any]] = (),
    **latency: Any,
) -> str:
    metrics: dict[str, Any] = {
        "perplexity": {},
        "sparsity": {"prunable": 0.3, "model": 0.2},
        "parameters": {"dense": 1000, "nonzero": 800},
        "bytes": {"dense": 2000, "artifact": 1600},
        "exports": exports,
    }
    if latency:
        metrics["latency"] = {"sequence_length": 512, "device": "cpu", **latency}
    method = "llm-pruner" if pattern == "structured" else "wanda"
    recipe = recipe_of(method, pattern=pattern)
    report = {"metrics": metrics, "recovery": RECOVERY, "layers": layers}
    return model_card(recipe, Report.model_validate(report), source)


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
    front = card("unstructured", source=facts).split("---")[1]
    assert [line for line in front.splitlines() if line.startswith(("license", "base_model"))] == facts.lines
    assert "tags: [pruning, wanda]" in front


def test_what_was_removed_is_counted_and_no_zeros_are_spoken_of() -> None:
    shown = card("structured")
    assert (
        "20.00% of all parameters were removed, 30.00% of those of its layers: 6 of 18 heads, 1,024 of 3,072" in shown
    )
    assert "200 steps, 4,000 tokens of articles. What was removed stays removed" in shown
    assert "Sparsity" not in shown and "zero:" not in shown and "still zero" not in shown


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
    shown = card("unstructured", layers=[], dense_ms=100.0, pruned_ms=pruned_ms, spread=spread)
    assert f"| prefill of 512 tokens on cpu | 100.0 ms | {said}" in shown
