"""Bench of part costs: unseen shapes, and the comparison of predictions with measurements."""

import pytest

from bench.part_costs import compared, row_of, unseen_shapes
from core.engine.latency.costs import RoundCosts
from core.engine.latency.variants import BlockVariant, ModelShape
from tests.engine.latency.tables import WIDTHS, part_costs, pass_costs


def test_unseen_shapes_differ_and_lose_all_kinds_of_parts_that_the_engine_can_leave_out():
    shapes = unseen_shapes(WIDTHS, 30, 20, without_ffn=True)
    assert shapes == unseen_shapes(WIDTHS, 30, 20, without_ffn=True)
    assert len(set(shapes)) == 20
    layers = [each for shape in shapes for each in shape.layers]
    assert {(bool(each.kv_groups), bool(each.ffn_width)) for each in layers} == {
        (True, True), (True, False), (False, True), (False, False)
    }  # fmt: skip
    assert {shape.vocabulary for shape in shapes} == {49152, 16384}
    of_llama_cpp = unseen_shapes(WIDTHS, 30, 20, without_ffn=False)
    assert all(shape.layers[0].kv_groups for shape in of_llama_cpp)
    assert not any(each.kv_groups and not each.ffn_width for shape in of_llama_cpp for each in shape.layers)


def test_predictions_that_are_twice_too_slow_are_so_in_the_table_but_not_against_dense():
    costs = pass_costs([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], 6.0, 0.5)
    table = part_costs(RoundCosts(prefill=costs, decode=costs), [])
    shapes = [ModelShape((BlockVariant(3, 1536),) * 4, 49152), ModelShape((BlockVariant(1, 768),) * 4, 16384)]
    seconds = [[(table.predict(each).prefill_ms / 2000,) * 2] * 3 for each in shapes]
    [only] = compared(table, shapes, seconds)
    assert only.ratios == pytest.approx((2.0, 2.0))
    assert only.relative == pytest.approx((1.0, 1.0))
    assert only.noise == (0.0, 0.0)
    assert row_of("llama-cpp", "prefill", 0, [only])[:6] == ("llama.cpp", "prefill", "1", "100.0%", "100.0%", "0.0%")
