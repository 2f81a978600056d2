"""The column update: equal to the plain form, better than deletion, robust to singular Hessians."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.engine.options.patterns import UNSTRUCTURED, parse_pattern
from core.engine.pruning.compensation.column_update import Columns, damped_inverse_factor
from core.engine.pruning.masks import LayerTarget, lowest_in_groups, lowest_in_tensor


def make_problem(rows: int, columns: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    inputs = torch.randn(4 * columns, columns, generator=generator, dtype=torch.float64) @ mixing
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return weight.to(dtype), (2 * inputs.T @ inputs / len(inputs)).to(dtype)


def ignore(text: str) -> None:
    return None


def plain(weight: Tensor, target: LayerTarget, hessian: Tensor, block_size: int, damping: float = 0.01) -> Tensor:
    """Algorithm 1 as the paper writes it: one column at a time, its error spread to every later column at once."""
    weight = weight.clone()
    dead = hessian.diagonal() == 0
    hessian = hessian.clone()
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    hessian += damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    columns = weight.shape[1]
    of = target.pattern.of or 1
    block_size -= block_size % of
    done = 0
    total = target.of_tensor(weight.numel())
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, columns, block_size):
        stop = min(start + block_size, columns)
        if of == 1:
            until = round(total * stop / columns)
            score = weight[:, start:stop] ** 2 / upper.diagonal()[start:stop] ** 2
            mask[:, start:stop] = lowest_in_tensor(score, until - done)
            done = until
        for column in range(start, stop):
            if of > 1 and column % of == 0:
                ahead = slice(column, column + of)
                score = weight[:, ahead] ** 2 / upper.diagonal()[ahead] ** 2
                assert target.pattern.keep is not None
                mask[:, ahead] = lowest_in_groups(score, target.pattern.keep, of)
            error = torch.where(mask[:, column], weight[:, column], 0) / upper[column, column]
            weight[:, column:] -= error[:, None] * upper[column, column:]
    weight[mask] = 0
    return weight


TARGETS = [LayerTarget(UNSTRUCTURED, 0.5), LayerTarget(UNSTRUCTURED, 0.7), LayerTarget(parse_pattern("2:4"), 0.5),
           LayerTarget(parse_pattern("5:8"), 0.375)]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.pattern.text}-{target.sparsity}")
@pytest.mark.parametrize("sub_block", [1, 8, 32])
def test_sub_blocked_form_equals_the_plain_form(target: LayerTarget, sub_block: int) -> None:
    first, hessian = make_problem(13, 80, seed=1)
    second, _ = make_problem(7, 80, seed=2)
    factor, dead = damped_inverse_factor(hessian, 0.01, ignore)
    columns = Columns([first, second], factor)
    together = columns.prune([target, target], dead, block_size=48, sub_block=sub_block).weights
    for weight, pruned in zip([first, second], together, strict=True):
        torch.testing.assert_close(pruned, plain(weight, target, hessian, 48), atol=1e-9, rtol=1e-9)


def test_the_factor_of_a_split_matrix_is_that_of_the_inverse() -> None:
    columns = 600
    _, hessian = make_problem(1, columns, seed=columns)
    factor, dead = damped_inverse_factor(hessian, 0.01, ignore)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    assert not dead.any() and torch.equal(factor, factor.triu())
    torch.testing.assert_close(factor.T @ factor @ damped, torch.eye(columns, dtype=torch.float64))


def test_float32_agrees_with_the_plain_form_to_1e_4() -> None:
    weight, hessian = make_problem(32, 256, seed=3, dtype=torch.float32)
    hessian += 10 * torch.eye(256)
    factor, dead = damped_inverse_factor(hessian, 0.01, ignore)
    (pruned,) = Columns([weight], factor).prune([TARGETS[0]], dead, block_size=128).weights
    reference = plain(weight.double(), TARGETS[0], hessian.double(), 128)
    same = (pruned == 0) == (reference == 0)
    assert same.float().mean() > 0.999
    torch.testing.assert_close(pruned[same.all(dim=1)], reference[same.all(dim=1)].float(), atol=1e-4, rtol=1e-4)


@given(st.integers(0, 2**31), st.integers(2, 24))
@settings(max_examples=30, deadline=None)
def test_factor_is_that_of_the_damped_inverse(seed: int, size: int) -> None:
    _, hessian = make_problem(1, size, seed)
    factor, _ = damped_inverse_factor(hessian, 0.01, ignore)
    assert torch.equal(factor, factor.triu())
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(factor.T @ factor @ damped, torch.eye(size, dtype=torch.float64), atol=1e-6, rtol=1e-6)


def test_dead_inputs_lose_their_weights_first() -> None:
    weight, hessian = make_problem(6, 32, seed=5)
    hessian[:8] = 0
    hessian[:, :8] = 0
    factor, dead = damped_inverse_factor(hessian, 0.01, ignore)
    assert dead.tolist() == [True] * 8 + [False] * 24
    (pruned,) = Columns([weight], factor).prune([LayerTarget(UNSTRUCTURED, 0.5)], dead, block_size=32).weights
    assert (pruned[:, :8] == 0).all() and int((pruned == 0).sum()) == 6 * 16


def test_a_failing_factorisation_doubles_the_damping_and_says_so() -> None:
    notes: list[str] = []
    indefinite = torch.eye(4) - 0.6 * torch.ones(4, 4).fill_diagonal_(0)
    factor, _ = damped_inverse_factor(indefinite, 0.01, notes.append)
    assert torch.isfinite(factor).all()
    assert len(notes) == 1 and "instead of 0.01" in notes[0]
