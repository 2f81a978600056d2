"""Rates from measured curves: the sum is exact, who suffers more loses no more; and patterns with their sparsities."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.engine.options.patterns import parse_pattern, resolve_sparsity
from core.engine.options.sensitivity import LayerCosts, allocate
from secateur_wire.errors import InvalidPattern, InvalidSparsity

RATES = tuple(tenths / 10 for tenths in range(1, 10))
increases = st.lists(st.floats(-0.01, 5), min_size=9, max_size=9)
weights = st.integers(1, 10**7)
sparsities = st.floats(0, 0.9)
examples = hypothesis_settings(max_examples=150, deadline=None)


def layer(number: int, costs: list[float], size: int = 1000, rates: tuple[float, ...] = RATES) -> LayerCosts:
    return LayerCosts(f"layer {number}", size, rates, costs)


def removed(layers: list[LayerCosts], rates: list[float]) -> float:
    total = sum(each.weights for each in layers)
    return sum(each.weights * rate for each, rate in zip(layers, rates, strict=True)) / total


@given(st.lists(st.tuples(increases, weights), min_size=1, max_size=8), sparsities)
@examples
def test_the_sum_is_exactly_what_was_asked_and_no_rate_is_beyond_what_was_measured(
    curves: list[tuple[list[float], int]], sparsity: float
) -> None:
    layers = [layer(number, costs, size) for number, (costs, size) in enumerate(curves)]
    rates = allocate(layers, sparsity)
    assert removed(layers, rates) == pytest.approx(sparsity, abs=1e-12)
    assert all(0 <= rate <= 0.9 + 1e-12 for rate in rates)


@given(increases, st.floats(1.0, 100), st.lists(increases, max_size=4), sparsities)
@examples
def test_who_loses_more_everywhere_is_pruned_no_more(
    costs: list[float], factor: float, others: list[list[float]], sparsity: float
) -> None:
    tender = [factor * each if each > 0 else each for each in costs]
    rates = allocate([layer(number, each) for number, each in enumerate([costs, tender, *others])], sparsity)
    assert rates[1] <= rates[0] + 1e-12


def test_it_beats_the_uniform_rates_on_its_own_curves_and_any_exchange_between_two_layers() -> None:
    costs = (0.2, 1.0, 3.0, 0.7)

    def predicted(rates: list[float]) -> float:
        return sum(cost * rate**3 for cost, rate in zip(costs, rates, strict=True))

    fine = tuple(place / 100 for place in range(1, 100))
    layers = [layer(number, [cost * rate**3 for rate in fine], rates=fine) for number, cost in enumerate(costs)]
    rates = allocate(layers, 0.5)
    assert predicted(rates) < predicted([0.5] * 4)
    for giver in range(4):
        for taker in range(4):
            moved = list(rates)
            moved[giver] -= 0.02
            moved[taker] += 0.02
            assert giver == taker or predicted(moved) > predicted(rates)


def test_a_layer_of_twice_the_weights_and_twice_the_cost_is_pruned_alike() -> None:
    costs = [rate**2 for rate in RATES]
    rates = allocate([layer(0, costs), layer(1, [2 * each for each in costs], 2000)], 0.4)
    assert rates == pytest.approx([0.4, 0.4])


def test_more_than_was_measured_is_refused_with_the_highest_there_is() -> None:
    with pytest.raises(InvalidSparsity, match=r"lose 0\.9") as caught:
        allocate([layer(0, [rate**2 for rate in RATES])], 0.95)
    assert caught.value.param == "sparsity"


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
