"""Costs of parts: what is fitted, what lies between the sizes that were measured, and whom a table is for."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.engine.latency.costs import ModelWidths, PartCosts, PassCosts, RoundCosts, Workload
from core.engine.latency.design import fitted_costs, timed_groups, timed_shapes, timed_widths
from core.engine.latency.measure import costs_of_rounds, relative_error, require_quiet
from core.engine.latency.variants import BlockVariant, ModelShape
from secateur_wire.errors import Conflict, LatencyTooNoisy

WIDTHS = ModelWidths(
    architecture="LlamaForCausalLM",
    hidden_size=576,
    head_size=64,
    heads_per_group=3,
    block=BlockVariant(3, 1536),
    vocabulary=49152,
    is_tied=True,
)
WORKLOAD = Workload(engine="llama-cpp", type="Q8_0", threads=2)


def pass_costs(attention: list[float], ffn: list[float], vocabulary: float, rest: float) -> PassCosts:
    """Return costs at the sizes that are timed of `WIDTHS`: a constant, and what each line adds to it at its end."""

    def on_lines(sizes: list[int], numbers: list[float]) -> dict[int, float]:
        return {size: float(np.interp(size, [0, *sizes[1:]], np.cumsum(numbers))) for size in sizes}

    return PassCosts(
        attention=on_lines([*timed_groups(3), 3], attention),
        ffn=on_lines([*timed_widths(1536), 1536], ffn),
        vocabulary={WIDTHS.vocabulary: vocabulary},
        rest=rest,
    )


def part_costs(costs: RoundCosts, rounds: list[RoundCosts]) -> PartCosts:
    return PartCosts(
        prefill=costs.prefill,
        decode=costs.decode,
        rounds=rounds,
        workload=WORKLOAD,
        model=WIDTHS,
        machine="a processor, 2 processors",
        version="llama-cpp-py-sync 1",
        measured_on=date(2026, 12, 1),
        layers=8,
    )


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
