"""Draws of tokens: from the softmax of the logits, whatever their number and size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine.models.sampling import draw_tokens
from secateur_wire.errors import NotFiniteWeights

_DRAWS = 1024


def _shares(logits_V: torch.Tensor) -> torch.Tensor:
    """Return the share of each token among draws at evenly spaced places from 0 to 1."""
    uniform_B = (torch.arange(_DRAWS, dtype=torch.float64) + 0.5) / _DRAWS
    tokens_B = draw_tokens(logits_V.expand(_DRAWS, -1), uniform_B)
    return torch.bincount(tokens_B, minlength=len(logits_V)).double() / _DRAWS


@settings(max_examples=15)
@given(words=st.integers(1, 1500), spread=st.floats(0.0, 30.0), seed=st.integers(0, 999), dtype=st.sampled_from("fb"))
def test_tokens_are_as_frequent_as_their_probability(words: int, spread: float, seed: int, dtype: str) -> None:
    logits_V = spread * torch.randn(words, generator=torch.Generator().manual_seed(seed))
    logits_V = logits_V.to({"f": torch.float32, "b": torch.bfloat16}[dtype])
    expected_V = logits_V.double().softmax(0)
    # evenly spaced places leave less than one draw on either side of a token's interval
    assert (_shares(logits_V) - expected_V).abs().max() <= 1.01 / _DRAWS + 1e-6


def test_rare_tokens_at_the_end_of_a_large_vocabulary_keep_their_probability() -> None:
    words, rare = 2**18, 100
    logits_1V = torch.zeros(1, words)
    logits_1V[:, -rare:] = -12.0  # together 2.3e-9 of the draws, less than float32 resolves near 1
    share = rare * 6.144e-6 / (words - rare)
    for place, is_rare in ((1 - 2 * share, False), (1 - 0.5 * share, True), (1 - 1e-16, True)):
        (token,) = draw_tokens(logits_1V, torch.tensor([place], dtype=torch.float64)).tolist()
        assert (token >= words - rare) == is_rare, place


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    logits_BV = torch.zeros(2, 600)
    logits_BV[1, 599] = value
    with pytest.raises(NotFiniteWeights, match="not finite"):
        draw_tokens(logits_BV, torch.rand(2, dtype=torch.float64))
