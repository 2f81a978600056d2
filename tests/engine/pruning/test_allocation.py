"""OWL: how outliers share out a sparsity among layers."""

import pytest
import torch

from core.engine.pruning.allocation.global_ranking import outlier_share, owl_sparsities


def test_an_outlier_is_a_score_above_so_many_times_the_mean_of_its_block() -> None:
    scores = [torch.tensor([[1.0, 1.0], [1.0, 5.0]]), torch.tensor([[2.0, 2.0], [2.0, 2.0]])]  # mean 2
    assert outlier_share(scores, 2.0) == 1 / 8
    assert outlier_share(scores, 0.75) == 5 / 8


def test_who_has_more_outliers_keeps_more_and_the_mean_is_what_was_asked() -> None:
    found = owl_sparsities([0.10, 0.30, 0.15], 0.5, 0.08)
    assert found[1] < found[2] < found[0]
    assert sum(found) / 3 == pytest.approx(0.5) and found[0] - found[1] == pytest.approx(2 * 0.08)
    assert owl_sparsities([0.2, 0.2], 0.5, 0.08) == [0.5, 0.5]
