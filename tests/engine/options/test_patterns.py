"""Patterns and the sparsities they allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.engine.options.patterns import parse_pattern, resolve_sparsity
from secateur_wire.errors import InvalidPattern, InvalidSparsity


@given(st.integers(1, 60), st.integers(1, 60))
def test_n_m_means_keep_n_of_m(n: int, m: int) -> None:
    if n < m:
        pattern = parse_pattern(f"{n}:{m}")
        assert (pattern.keep, pattern.of) == (n, m)
        assert resolve_sparsity(pattern, None) == 1 - n / m
        assert resolve_sparsity(pattern, 1 - n / m) == 1 - n / m
    else:
        with pytest.raises(InvalidPattern, match="0 < n < m"):
            parse_pattern(f"{n}:{m}")


@pytest.mark.parametrize("text", ["", "2-4", "structure", "2:4:8", ":4", "2:", "-1:4", "2:4 ", "٢:٤"])
def test_what_is_no_pattern_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(InvalidPattern, match="'unstructured', 'structured' or 'n:m'") as caught:
        parse_pattern(text)
    assert caught.value.param == "pattern"
    assert f"did you mean {text!r}" not in str(caught.value)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_sparsity_out_of_range_is_refused(sparsity: float) -> None:
    with pytest.raises(InvalidSparsity, match="0 ≤ sparsity < 1"):
        resolve_sparsity(parse_pattern("unstructured"), sparsity)
