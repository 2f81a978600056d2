"""Masks: exact counts, lowest scores, ties to the lowest index; the figures and shares that they are made of."""

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine.options.patterns import UNSTRUCTURED, parse_pattern
from core.engine.pruning.allocation import outlier_share, owl_sparsities
from core.engine.pruning.input_statistics import InputMoments, InputStatistic, Statistic
from core.engine.pruning.masks import LayerTarget, lowest, lowest_in_groups, lowest_in_tensor, removal_mask
from core.engine.pruning.solver import PrunableLinear
from core.methods.descriptions.zeros import WandaParameters
from core.methods.solvers import Wanda, cumulative_row_share

# Few distinct values, so that ties are the rule.
scores = st.integers(1, 6).flatmap(
    lambda rows: st.integers(1, 12).flatmap(
        lambda columns: st.lists(
            st.lists(st.integers(0, 3), min_size=columns, max_size=columns), min_size=rows, max_size=rows
        )
    )
)


@given(scores, st.floats(0, 1))
def test_lowest_is_a_stable_sorts_first_count(values: list[list[int]], share: float) -> None:
    score = torch.tensor(values, dtype=torch.float32)
    count = round(share * score.shape[1])
    order = numpy.argsort(score.numpy(), axis=1, kind="stable")[:, :count]
    expected = numpy.zeros(score.shape, dtype=bool)
    numpy.put_along_axis(expected, order, True, axis=1)
    assert torch.equal(lowest(score, count), torch.from_numpy(expected))


@given(scores, st.floats(0, 1))
def test_a_tensors_mask_has_exactly_the_count_asked_for(values: list[list[int]], share: float) -> None:
    score = torch.tensor(values, dtype=torch.float32)
    count = round(share * score.numel())
    assert int(lowest_in_tensor(score, count).sum()) == count


@given(st.integers(2, 8).flatmap(lambda m: st.tuples(st.just(m), st.integers(1, m - 1))), st.integers(0, 2**31))
def test_n_m_keeps_the_n_highest_of_every_m(shape: tuple[int, int], seed: int) -> None:
    of, keep = shape
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(0, 4, (3, 5 * of), generator=generator).float()
    mask = lowest_in_groups(score, keep, of)
    for group, chosen in zip(score.view(-1, of), mask.view(-1, of), strict=True):
        order = numpy.argsort(group.numpy(), kind="stable")
        assert chosen.nonzero().flatten().tolist() == sorted(order[: of - keep].tolist())


def test_all_scores_equal_prunes_exactly_the_first() -> None:
    mask = lowest(torch.ones(10), 4)
    assert mask.tolist() == [True] * 4 + [False] * 6


def test_two_of_four_keeps_two_and_one_of_four_keeps_one() -> None:
    score = torch.tensor([[4.0, 3, 2, 1]])
    for text, kept in (("2:4", [True, True, False, False]), ("1:4", [True, False, False, False])):
        target = LayerTarget(parse_pattern(text), 0.0)
        assert (~removal_mask(score, target, by_row=True))[0].tolist() == kept


@given(st.integers(0, 2**31), st.floats(0.05, 0.95))
def test_the_wanda_variants_exact_count_agrees_with_a_bisected_threshold(seed: int, sparsity: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    score = torch.rand(6, 40, generator=generator, dtype=torch.float64)
    count = round(sparsity * score.numel())
    mask = lowest_in_tensor(cumulative_row_share(score), count)
    ordered, order = score.sort(dim=1)
    cumulative = ordered.cumsum(1) / ordered.sum(1, keepdim=True)
    low, high = 0.0, 1.0
    for _ in range(60):
        alpha = (low + high) / 2
        low, high = (alpha, high) if int((cumulative <= alpha).sum()) < count else (low, alpha)
    bisected = torch.zeros_like(mask).scatter_(1, order, cumulative <= high)
    assert torch.equal(mask, bisected)


def test_wanda_removes_the_lowest_products_of_every_row() -> None:
    """Each of a weight and the norm of its input: the second is twice as large as the first, the third is silent."""
    statistic = InputStatistic(Statistic.NORMS, sample_stride=1)
    statistic.update(torch.tensor([[3.0, 6.0, 0.0, 1.0], [4.0, 8.0, 0.0, 0.0]]))
    weight_OI = torch.tensor([[3.0, -2.0, 9.0, 1.0], [0.03, 0.01, 0.09, -0.4]])
    linear = PrunableLinear("linear", 0, weight_OI, LayerTarget(UNSTRUCTURED, 0.5))
    (pruned_OI,) = Wanda(WandaParameters()).prune([linear], statistic, lambda text: None)
    assert torch.equal(pruned_OI, torch.tensor([[3.0, -2.0, 0.0, 0.0], [0.03, 0.0, 0.0, -0.4]]))


def test_an_outlier_is_a_score_above_so_many_times_the_mean_of_its_block() -> None:
    scores = [torch.tensor([[1.0, 1.0], [1.0, 5.0]]), torch.tensor([[2.0, 2.0], [2.0, 2.0]])]  # mean 2
    assert outlier_share(scores, 2.0) == 1 / 8
    assert outlier_share(scores, 0.75) == 5 / 8


def test_who_has_more_outliers_keeps_more_and_the_mean_is_what_was_asked() -> None:
    found = owl_sparsities([0.10, 0.30, 0.15], 0.5, 0.08)
    assert found[1] < found[2] < found[0]
    assert sum(found) / 3 == pytest.approx(0.5) and found[0] - found[1] == pytest.approx(2 * 0.08)
    assert owl_sparsities([0.2, 0.2], 0.5, 0.08) == [0.5, 0.5]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), far=st.sampled_from([0, 1e4])
)
def test_moments_of_parts_are_those_of_all_tokens(seed: int, sizes: list[int], far: float) -> None:
    """Also where the mean is ten thousand standard deviations away; distances from it are rounded to float32."""
    X_NI = torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(seed)) + far
    moments = InputMoments()
    for part in X_NI.split(sizes):
        moments.update(part[None])
    X_NI = X_NI.double()
    torch.testing.assert_close(moments.mean_I, X_NI.mean(0), atol=1e-7, rtol=1e-5)
    variance_I = X_NI.var(0) if len(X_NI) > 1 else torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(moments.variance_I, variance_I, atol=1e-7, rtol=1e-5)
    torch.testing.assert_close(moments.mean_square_I, X_NI.square().mean(0), atol=1e-7, rtol=1e-5)
