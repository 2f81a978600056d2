"""Fitting weights to what the dense model gave, and those that stay once the mask is known."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.engine.options.axes import Compensation
from core.engine.pruning.compensation.refit import best_refit, conjugate_gradient, refit, refit_directions
from core.engine.pruning.input_statistics import InputStatistic, Statistic


def ignore(text: str) -> None:
    return None


def paired(tokens: int, size: int, seed: int, drift: float = 0.3) -> tuple[InputStatistic, Tensor, Tensor]:
    """A statistic in float64, the dense inputs and the pruned ones, [tokens, size]."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64)
    dense = torch.randn(tokens, size, generator=generator, dtype=torch.float64) @ mixing
    seen = dense + drift * torch.randn(tokens, size, generator=generator, dtype=torch.float64)
    statistic = InputStatistic(Statistic.GRAM, sample_stride=1)
    statistic.tokens = tokens
    statistic._gram_II, statistic._cross_II = seen.T @ seen, dense.T @ seen
    return statistic, dense, seen


def problem(seed: int, size: int, rows: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Target and masked weights [rows, size], and a Gram matrix."""
    statistic, _, _ = paired(3 * size, size, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    target = torch.randn(rows, size, generator=generator, dtype=torch.float64)
    removed = torch.rand(rows, size, generator=generator) < 0.5
    return target, target.masked_fill(removed, 0), statistic.gram_II


def objective(target: Tensor, fitted: Tensor, gram: Tensor) -> float:
    return float((((target - fitted) @ gram) * (target - fitted)).sum())


@given(st.integers(0, 2**31 - 2), st.integers(2, 24), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_conjugate_gradient_never_raises_the_objective_and_keeps_the_mask(seed: int, size: int, steps: int) -> None:
    target, pruned, gram = problem(seed, size)
    costs = [objective(target, conjugate_gradient(target, pruned, gram, n), gram) for n in range(steps + 1)]
    assert all(after <= before * (1 + 1e-9) + 1e-9 for before, after in pairwise(costs))
    assert (conjugate_gradient(target, pruned, gram, steps)[pruned == 0] == 0).all()


@given(st.integers(0, 2**31 - 2), st.integers(2, 12))
@settings(max_examples=30, deadline=None)
def test_as_many_steps_as_weights_reach_the_least_squares_solution(seed: int, size: int) -> None:
    target, pruned, gram = problem(seed, size)
    fitted = conjugate_gradient(target, pruned, gram, 3 * size)
    for row in range(len(target)):
        kept = pruned[row] != 0
        if kept.any():
            exact = torch.linalg.solve(gram[kept][:, kept], gram[kept] @ target[row])
            least = torch.zeros_like(target[row])
            least[kept] = exact
            best = objective(target[row : row + 1], least.unsqueeze(0), gram)
            assert objective(target[row : row + 1], fitted[row : row + 1], gram) <= best * (1 + 1e-6) + 1e-8


@given(st.integers(0, 2**31 - 2), st.integers(2, 16))
@settings(max_examples=30, deadline=None)
def test_the_refit_is_the_ridge_solution_towards_the_dense_outputs(seed: int, size: int) -> None:
    statistic, dense, seen = paired(4 * size, size, seed)
    weight = torch.randn(3, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    (direction,) = refit_directions([weight], statistic, 0.01, ignore)
    ridge = 0.01 * float(statistic.gram_II.diagonal().mean()) * torch.eye(size, dtype=torch.float64)
    solution = torch.linalg.solve(seen.T @ seen + ridge, (weight @ (dense.T @ seen) + weight @ ridge).T).T
    torch.testing.assert_close(weight + direction, solution, atol=1e-6, rtol=1e-6)


@given(st.integers(0, 2**31 - 2), st.integers(2, 12), st.integers(1, 12), st.booleans())
@settings(max_examples=30, deadline=None)
def test_with_fewer_inputs_and_a_stream_that_drifted_it_is_the_ridge_solution_too(
    seed: int, size: int, kept: int, drifts: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    kept = min(kept, size)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    mixing, weight, left = drawn(size, kept), drawn(3, size), drawn(3, kept)
    dense = drawn(6 * size, size)
    seen, drift = dense @ mixing + 0.3 * drawn(6 * size, kept), drawn(6 * size, 3)
    statistic = InputStatistic(Statistic.GRAM, sample_stride=1, fitted_tokens=4 * size)
    target = dense @ weight.T + drifts * drift
    for part in range(0, 6 * size, 5):
        few = slice(part, part + 5)
        statistic.update(seen[few], *((None, target[few]) if drifts else (dense[few],)))
    target = target.double()
    (direction,) = refit_directions([left], statistic, 0.01, ignore, [weight])
    inputs, outputs = seen[: 4 * size].double(), target[: 4 * size]
    ridge = 0.01 * (inputs.T @ inputs).diagonal().mean() * torch.eye(kept, dtype=torch.float64)
    solution = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ outputs + ridge @ left.T.double()).T
    torch.testing.assert_close((left + direction).double(), solution, atol=5e-3, rtol=5e-3)

    def cost(share: float) -> float:
        return float((target[4 * size :] - seen[4 * size :].double() @ (left + share * direction).T.double()).norm())

    assert statistic.holdout is not None and statistic.holdout.tokens == 2 * size
    chosen = best_refit(left, direction, statistic.holdout, weight)
    assert cost(chosen) <= min(cost(share / 50) for share in range(51)) * (1 + 1e-5)


def test_a_given_share_is_how_far_the_weights_go() -> None:
    statistic, _, _ = paired(32, 8, 0)
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    asked = Compensation(refit=0.25, ridge=0.01)
    (direction,) = refit_directions([weight], statistic, 0.01, ignore)
    (fitted,) = refit([weight], statistic, asked, ignore)
    assert torch.equal(fitted.weight_OI, weight + 0.25 * direction) and fitted.refit == 0.25
