import math

import pytest

from core.jobs.gates import evaluate_gates
from core.jobs.schemas import Gates


def metrics(*ratios: float | None) -> dict[str, object]:
    return {"perplexity": {f"text-{number}": {"ratio": ratio} for number, ratio in enumerate(ratios)}}


@pytest.mark.parametrize("ratios", [(), (2.4,), (1.0, 2.4), (1,)])
def test_a_gate_is_kept_up_to_its_limit(ratios: tuple[float, ...]) -> None:
    assert evaluate_gates(Gates(max_perplexity_ratio=2.4), metrics(*ratios)) is None


@pytest.mark.parametrize("ratio", [2.41, math.inf, math.nan, None])
def test_a_gate_is_missed_on_any_text_and_by_what_is_no_number(ratio: float | None) -> None:
    missed = evaluate_gates(Gates(max_perplexity_ratio=2.4), metrics(1.0, ratio))
    assert missed is not None
    assert (missed.code, missed.param, missed.retryable) == ("gate_missed", "gates.max_perplexity_ratio", False)
    assert "text-1" in missed.message and "2.4" in missed.message


def test_without_gates_everything_passes() -> None:
    assert evaluate_gates(Gates(), metrics(math.inf)) is None
