"""The divergence in pieces is the whole one; of some words and a tail it is less, of all words it is that."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from core.engine.recovery.distill import divergence as module
from core.engine.recovery.distill.divergence import Labels, TopWords, divergence, softened

WORDS = 12


def logits_of(seed: int, spread: float) -> tuple[Tensor, Tensor]:
    """Given, which take gradients, and wanted, of five tokens."""
    generator = torch.Generator().manual_seed(seed)
    given_NV, wanted_NV = torch.randn(2, 5, WORDS, generator=generator) * spread
    return given_NV.requires_grad_(), wanted_NV


def by_definition(given_NV: Tensor, wanted_NV: Tensor, temperature: float) -> Tensor:
    given_log, wanted_log = (functional.log_softmax(each / temperature, -1) for each in (given_NV, wanted_NV))
    return functional.kl_div(given_log, wanted_log, reduction="batchmean", log_target=True) * temperature**2


@settings(max_examples=20)
@given(
    st.integers(0, 2**20),
    st.sampled_from([0.1, 1.0, 8.0]),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.sampled_from([None, [1, 0, 11, 3, 3], [-1, 7, 7, -1, 2], [-1] * 5]),
)
def test_value_and_gradient_are_those_of_the_definition(
    seed: int, spread: float, temperature: float, right: list[int] | None
) -> None:
    given_NV, wanted_NV = logits_of(seed, spread)
    exact = by_definition(given_NV, wanted_NV, temperature)
    labels = None if right is None else Labels(torch.tensor(right), 0.3)
    if labels is not None:
        exact = 0.7 * exact
        if any(each >= 0 for each in right or []):
            exact = exact + 0.3 * functional.cross_entropy(given_NV, labels.labels_N, ignore_index=-1)
    (slope,) = torch.autograd.grad(2 * exact, given_NV)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS_BYTES", 4 * WORDS * 2)  # two rows at a time
        every = TopWords.of(softened(wanted_NV, temperature), WORDS)
        for wanted in (wanted_NV, every):
            value = divergence(given_NV, wanted, temperature, labels)
            torch.testing.assert_close(value, exact, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(torch.autograd.grad(2 * value, given_NV)[0], slope, rtol=1e-4, atol=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 2**20), st.integers(1, WORDS - 1))
def test_fewer_words_and_their_tail_bound_it_from_below(seed: int, k: int) -> None:
    given_NV, wanted_NV = logits_of(seed, 3.0)
    fewer, more = (divergence(given_NV, TopWords.of(softened(wanted_NV, 1.0), each), 1.0) for each in (k, k + 1))
    exact = by_definition(given_NV, wanted_NV, 1.0)
    assert -1e-5 <= fewer.item() <= more.item() + 1e-5 <= exact.item() + 2e-5
    # The definition on k + 1 events has the same gradient as is given with the value.
    words = TopWords.of(softened(wanted_NV, 1.0), k)
    log_q = functional.log_softmax(given_NV, -1)
    mine = log_q.gather(1, words.words_NK.long())
    rest = log_q.scatter(1, words.words_NK.long(), -torch.inf).logsumexp(1, keepdim=True)
    p_log = torch.cat([words.log_p_NK, words.log_tail_N1], 1)
    events = (p_log.exp() * (p_log - torch.cat([mine, rest], 1))).sum(1).mean()
    (slope,), (expected,) = (torch.autograd.grad(each, given_NV) for each in (fewer, events))
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-5)
