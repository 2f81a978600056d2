"""Rounding to grids: GPTQ's error is never above that of rounding to nearest, zeros stay zero, codes are in range."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.engine.options.patterns import parse_pattern
from core.engine.pruning.compensation.column_update import (
    Columns,
    damped_inverse_factor,
)
from core.engine.pruning.grid import GridFit, QuantisedWeight
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.masks import LayerTarget
from core.engine.quantization.roundings import rounding_for
from secateur_wire.job_body import Quantization

INT4 = Quantization(scheme="int4", group_size=32, rounding="gptq")
INT8 = Quantization(scheme="int8", rounding="gptq")
SCHEMES = st.sampled_from([INT4, INT8])
SEEDS = st.integers(0, 2**31)


def ignore(text: str) -> None:
    return None


def random_inputs(columns: int, seed: int, *, diagonal: bool = False) -> InputStatistic:
    """Return the statistic of correlated inputs, or of inputs each of which is alone in its rows."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(2 * columns, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    statistic = InputStatistic(Statistic.GRAM, sample_stride=1)
    statistic.update(torch.diag(inputs[0]) if diagonal else inputs)
    return statistic


def random_weight(rows: int, columns: int, seed: int, *, zeros: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    return weight.masked_fill(torch.rand(rows, columns, generator=generator) < zeros, 0)


def row_errors(weight: Tensor, rounded: QuantisedWeight, inputs: InputStatistic) -> Tensor:
    difference = (weight - rounded.weight_OI.float()).double()
    return ((difference @ inputs.gram_II.double()) * difference).sum(dim=1)


def nearest(weight: Tensor, fit: GridFit) -> QuantisedWeight:
    return QuantisedWeight.of(weight, fit.grid_of(weight), weight == 0)


@given(SEEDS, SCHEMES, st.sampled_from([0.0, 0.5]))
@settings(max_examples=25, deadline=None)
def test_gptq_is_never_farther_from_a_row_of_outputs_than_rounding_to_nearest(
    seed: int, chosen: Quantization, zeros: float
) -> None:
    weight, inputs = random_weight(6, 96, seed, zeros=zeros), random_inputs(96, seed)
    rounding = rounding_for(chosen, torch.bfloat16)
    (rounded,) = rounding.round([weight], inputs, ignore)
    own, other = (row_errors(weight, each, inputs) for each in (rounded, nearest(weight, rounding.fit(inputs))))
    assert bool((own <= other * (1 + 1e-4)).all())
    assert not rounded.codes_OI[weight == 0].any()
    assert int(rounded.pruned) == int((weight == 0).sum())


@given(SEEDS, SCHEMES)
@settings(max_examples=15, deadline=None)
def test_on_inputs_without_correlation_gptq_rounds_to_nearest(seed: int, chosen: Quantization) -> None:
    weight, inputs = random_weight(5, 64, seed), random_inputs(64, seed, diagonal=True)
    rounding = rounding_for(chosen, torch.float32)
    (rounded,) = rounding.round([weight], inputs, ignore)
    assert torch.equal(rounded.codes_OI, nearest(weight, rounding.fit(inputs)).codes_OI)


def test_layers_that_share_their_inputs_are_rounded_as_each_alone() -> None:
    weights, inputs = [random_weight(rows, 128, rows) for rows in (8, 5)], random_inputs(128, 3)
    rounding = rounding_for(INT4, torch.bfloat16)
    for weight, together in zip(weights, rounding.round(weights, inputs, ignore), strict=True):
        (alone,) = rounding.round([weight], inputs, ignore)
        assert torch.equal(alone.codes_OI, together.codes_OI)


@given(
    SEEDS, st.sampled_from([4, 8]), st.sampled_from([None, 32, 64]), st.sampled_from([torch.bfloat16, torch.float16])
)
@settings(max_examples=25, deadline=None)
def test_codes_are_in_range_and_survive_the_dtype_that_they_are_saved_in(
    seed: int, bits: int, group_size: int | None, dtype: torch.dtype
) -> None:
    weight = random_weight(4, 64, seed) * 10.0 ** (seed % 5 - 2)
    weight[0] = 0
    grid = GridFit(bits, group_size, dtype).grid_of(weight)
    codes = grid.codes_of(weight)
    assert int(codes.min()) >= -(2 ** (bits - 1)) and int(codes.max()) < 2 ** (bits - 1)
    assert torch.equal(grid.scales_GO, grid.scales_GO.to(dtype).float())
    assert torch.equal(grid.codes_of(grid.values_of(codes).float()), codes)


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_scales_that_are_fitted_to_inputs_are_no_worse_for_them(seed: int) -> None:
    weight, inputs = random_weight(4, 64, seed), random_inputs(64, seed)
    squares = inputs.norms_I.square()
    errors = []
    for given_squares in (None, squares):
        grid = GridFit(4, 32, torch.float32, given_squares).grid_of(weight)
        errors.append(float(((grid.values_of(grid.codes_of(weight)) - weight).square() * squares).sum()))
    assert errors[1] <= errors[0] * (1 + 1e-5)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_pruning_and_rounding_at_once_is_better_than_one_after_the_other(pattern: str) -> None:
    weight, inputs = random_weight(48, 256, 1), random_inputs(256, 1)
    target = LayerTarget(parse_pattern(pattern), 0.5)
    factor, dead = damped_inverse_factor(inputs.gram_II, 0.01, ignore)
    (pruned,) = Columns([weight], factor).prune([target], dead, block_size=128).weights
    fit = GridFit(4, 32, torch.bfloat16)
    (joint,) = Columns([weight], factor, fit).prune([target], dead, block_size=128).quantised
    assert int(joint.pruned) == int((pruned == 0).sum())
    after = nearest(pruned, fit)
    assert float(row_errors(weight, joint, inputs).sum()) < float(row_errors(weight, after, inputs).sum())
