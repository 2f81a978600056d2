"""Optimal Brain Surgeon's mathematics on random quadratics."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.engine.options.patterns import parse_pattern
from core.methods.obs.surgeon import inverse_hessian, obs_prune

sizes = st.integers(2, 14)
seeds = st.integers(0, 2**31)


def make_quadratic(size: int, seed: int, rows: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(3 * size, size, generator=generator, dtype=torch.float64)
    hessian = vectors.T @ vectors / len(vectors) + 0.01 * torch.eye(size, dtype=torch.float64)
    return torch.randn(rows, size, generator=generator, dtype=torch.float64), hessian


def cost(difference_RP: Tensor, hessian: Tensor) -> Tensor:
    return ((difference_RP @ hessian) * difference_RP).sum(dim=1) / 2


def one_at_a_time(weight: Tensor, hessian: Tensor, count: int) -> Tensor:
    """The paper's procedure with the inverse of the Hessian of the weights that are left taken anew each time."""
    weight, left = weight.clone(), list(range(len(weight)))
    for _ in range(count):
        inverse = torch.linalg.inv(hessian[left][:, left])
        place = int((weight[left] ** 2 / (2 * inverse.diagonal())).argmin())
        weight[left] -= weight[left[place]] / inverse[place, place] * inverse[:, place]
        weight[left.pop(place)] = 0
    return weight


@given(sizes, seeds, st.data())
@settings(max_examples=40, deadline=None)
def test_it_is_the_papers_procedure_with_each_inverse_taken_anew(size: int, seed: int, data: st.DataObject) -> None:
    weights, hessian = make_quadratic(size, seed)
    counts = torch.tensor([data.draw(st.integers(0, size)) for _ in weights])
    deletion = obs_prune(weights, torch.linalg.inv(hessian), counts)
    expected = torch.stack([one_at_a_time(w, hessian, int(n)) for w, n in zip(weights, counts, strict=True)])
    torch.testing.assert_close(deletion.weights_RP, expected, rtol=1e-7, atol=1e-9)
    assert deletion.deleted_RP.sum(dim=1).tolist() == counts.tolist()
    assert not deletion.weights_RP[deletion.deleted_RP].any()


@given(sizes, seeds, st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_the_update_costs_what_is_predicted_and_never_more_than_deletion(size: int, seed: int, share: float) -> None:
    weights, hessian = make_quadratic(size, seed)
    counts = torch.full((len(weights),), round(share * size))
    deletion = obs_prune(weights, torch.linalg.inv(hessian), counts)
    updated = cost(deletion.weights_RP - weights, hessian)
    torch.testing.assert_close(updated, deletion.increases_RT.sum(dim=1), rtol=1e-7, atol=1e-12)
    deleted = cost(weights.masked_fill(deletion.deleted_RP, 0) - weights, hessian)
    assert (updated <= deleted * (1 + 1e-9) + 1e-12).all()


@given(sizes, seeds, st.integers(1, 9), st.floats(1e-6, 1))
@settings(max_examples=40, deadline=None)
def test_the_recursion_comes_to_the_inverse(size: int, seed: int, block: int, alpha: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(3 * size, size, generator=generator, dtype=torch.float64)
    inverse = inverse_hessian(vectors.split(block), size, alpha=alpha, samples=17)
    hessian = vectors.T @ vectors / 17 + alpha * torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(inverse, torch.linalg.inv(hessian), rtol=1e-6, atol=1e-9)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_n_m_keeps_n_of_every_m(seed: int) -> None:
    weights, hessian = make_quadratic(12, seed)
    deletion = obs_prune(weights, torch.linalg.inv(hessian), torch.full((3,), 6), pattern=parse_pattern("2:4"))
    assert (deletion.deleted_RP.unflatten(1, (3, 4)).sum(dim=2) == 2).all()


def test_what_is_gone_stays_and_what_may_not_go_moves() -> None:
    weights, hessian = make_quadratic(10, 3)
    gone = torch.zeros_like(weights, dtype=torch.bool)
    gone[:, 2] = True
    weights[gone] = 0
    hessian[2] = hessian[:, 2] = 0
    hessian[2, 2] = 1
    deletion = obs_prune(weights, torch.linalg.inv(hessian), torch.tensor([4, 4, 4]), deleted_RP=gone, prunable=7)
    assert deletion.deleted_RP[:, :7].sum(dim=1).tolist() == [5, 5, 5] and deletion.deleted_RP[:, 2].all()
    assert not deletion.deleted_RP[:, 7:].any()
    assert (deletion.weights_RP[:, 7:] != weights[:, 7:]).all()
