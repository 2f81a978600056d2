"""Costs of parts: what is fitted, what lies between the sizes that were measured, and whom a table is for."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.engine.latency.costs import PartCosts, RoundCosts, interpolated
from core.engine.latency.design import fitted_costs, timed_shapes
from core.engine.latency.measure import costs_of_rounds, relative_error, require_quiet
from core.engine.latency.variants import BlockVariant, ModelShape
from secateur_wire.errors import Conflict, LatencyTooNoisy
from tests.engine.latency.tables import WIDTHS, WORKLOAD, part_costs, pass_costs

_COST = st.floats(min_value=0.0, max_value=50.0)
_COSTS = st.builds(
    pass_costs,
    st.lists(_COST, min_size=3, max_size=3),
    st.lists(_COST, min_size=3, max_size=3),
    _COST,
    _COST,
)
_VARIANT = st.builds(BlockVariant, st.integers(0, 3), st.integers(0, 1536))
_SHAPE = st.builds(ModelShape, st.lists(_VARIANT, max_size=30).map(tuple), st.integers(1, 49152))


@given(costs=_COSTS, shape=_SHAPE, layers=st.sampled_from([2, 4, 8, 30]), without_ffn=st.booleans())
def test_costs_that_add_up_are_found_exactly(costs, shape, layers, without_ffn):
    shapes = timed_shapes(WIDTHS, layers, without_ffn=without_ffn)
    found = fitted_costs(WIDTHS, shapes, [costs.total_ms(each) for each in shapes])
    assert found.total_ms(shape) == pytest.approx(costs.total_ms(shape), rel=1e-6, abs=1e-6)


@given(st.dictionaries(st.integers(1, 2000), _COST, min_size=1, max_size=5), st.data())
def test_a_larger_size_never_costs_less_where_none_of_the_measured_ones_does(costs, data):
    ascending = dict(zip(sorted(costs), sorted(costs.values()), strict=True))
    sizes = st.integers(0, max(costs))
    small, large = sorted((data.draw(sizes), data.draw(sizes)))
    assert 0.0 <= interpolated(ascending, small) <= interpolated(ascending, large) + 1e-9


def test_a_size_beyond_the_measured_ones_is_refused():
    with pytest.raises(ValueError, match="size 1537: the costs were measured from 192 to 1536"):
        pass_costs([1, 1, 1], [1, 1, 1], 1, 1).ffn_ms(1537)


def test_parts_that_are_left_out_cost_nothing_and_the_rest_is_always_paid():
    costs = pass_costs([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], 6.0, 0.5)
    table = part_costs(RoundCosts(prefill=costs, decode=costs), [])
    assert table.attention(0) == table.ffn(0) == (0.0, 0.0)
    gone = ModelShape((BlockVariant(0, 0),) * 30, 24576)
    assert table.predict(gone) == (3.5, 3.5)
    one = ModelShape((BlockVariant(3, 1536),), 24576)
    assert table.predict(one).decode_ms == 3.5 + table.attention(3).decode_ms + table.ffn(1536).decode_ms


@dataclass
class _Noisy:
    """Times of rounds: those of known costs, with normal noise relative to them."""

    share: float

    def table(self, rounds: int) -> tuple[PartCosts, float]:
        costs = pass_costs([1.0, 0.3, 0.3], [0.5, 0.9, 1.6], 7.0, 0.4)
        shapes, random = timed_shapes(WIDTHS, 8), np.random.default_rng(0)
        milliseconds = np.array([costs.total_ms(each) for each in shapes])[:, None]
        noisy = milliseconds * (1 + self.share * random.standard_normal((len(shapes), rounds)))
        seconds = [[(each / 1000, each / 1000 * 24) for each in row] for row in noisy]
        whole, *singly = costs_of_rounds(WIDTHS, shapes, seconds)
        table = part_costs(whole, singly)
        true = costs.total_ms(ModelShape((BlockVariant(3, 768),) * 30, WIDTHS.vocabulary))
        return table, true


def test_a_prediction_from_noisy_rounds_is_within_its_standard_errors():
    table, true = _Noisy(0.02).table(40)
    half = ModelShape((BlockVariant(3, 768),) * 30, WIDTHS.vocabulary)
    error = table.standard_errors(half)
    assert 0 < error.prefill_ms < 0.1 * true
    assert abs(table.predict(half).prefill_ms - true) < 3 * error.prefill_ms
    assert table.predict(half).decode_ms == pytest.approx(table.predict(half).prefill_ms)


def test_a_machine_that_is_too_noisy_is_told_of():
    layers = (BlockVariant(3, 1536),) * 30
    calm, _ = _Noisy(0.001).table(10)
    require_quiet(relative_error(calm, layers), 10)
    wild, _ = _Noisy(0.5).table(10)
    with pytest.raises(LatencyTooNoisy, match=r"after 10 rounds .* use a worker without other work"):
        require_quiet(relative_error(wild, layers), 10)
    with pytest.raises(LatencyTooNoisy):
        require_quiet(relative_error(part_costs(calm, calm.rounds[:1]), layers), 1)


def test_a_table_is_for_one_workload_model_machine_and_version_and_survives_json():
    table = PartCosts.model_validate_json(_Noisy(0.01).table(3)[0].model_dump_json())
    table.require_usable(WORKLOAD, WIDTHS, machine=table.machine, version=table.version)
    with pytest.raises(Conflict, match="version of llama-cpp llama-cpp-py-sync 1, not for llama-cpp-py-sync 2"):
        table.require_usable(WORKLOAD, WIDTHS, machine=table.machine, version="llama-cpp-py-sync 2")
    with pytest.raises(Conflict, match="machine a processor, 2 processors, not for another"):
        table.require_usable(WORKLOAD, WIDTHS, machine="another", version=table.version)
    other = WIDTHS.model_copy(update={"hidden_size": 64})
    with pytest.raises(Conflict, match=r"model .*hidden_size=576.*not for .*hidden_size=64"):
        table.require_usable(WORKLOAD, other, machine=table.machine, version=table.version)
