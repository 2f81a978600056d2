"""Memory of jobs on published mixtures is that of one expert at a time, in the account and in the estimate."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from bench.mixture_memory import MIXTURES, SECTION, TOKENS, Mixture, page
from core.service.jobs.estimates.mixtures import ExpertsAccount, active_parameters, experts_account

PUBLISHED = {"Qwen3-30B-A3B": (30.5e9, 3.3e9), "gpt-oss-20b": (20.9e9, 3.6e9), "DeepSeek-V3": (671e9, 37e9)}
"""Parameters that the models are said to have, and those that a token meets, embeddings among them."""


def account(mixture: Mixture, *, lanes: int = 1, is_fitted: bool = False) -> ExpertsAccount:
    found = experts_account(
        mixture.description,
        weight_bytes=2,
        forward_bytes=2,
        tokens=TOKENS.calibration,
        lanes=lanes,
        states_bytes=0,
        is_fitted=is_fitted,
    )
    assert found is not None
    return found


@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda each: each.name)
def test_shapes_have_the_parameters_that_were_published(mixture: Mixture) -> None:
    description = mixture.description
    parameters, met = PUBLISHED[mixture.name]
    assert description.parameters == pytest.approx(parameters, rel=0.005)
    ends = mixture.vocabulary * mixture.hidden
    assert active_parameters(description) + ends == pytest.approx(met, rel=0.12)


@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda each: each.name)
def test_more_experts_are_a_larger_block_and_no_more_statistics(mixture: Mixture) -> None:
    one, other = account(mixture), account(replace(mixture, experts=2 * mixture.experts))
    grown = {each.name for each in fields(one) if getattr(one, each.name) != getattr(other, each.name)}
    assert grown == {"outer", "block", "waiting"}, "a token waits with its router's outputs"
    assert other.waiting - one.waiting == 4 * mixture.experts * TOKENS.calibration
    assert other.block - one.block == 4 * mixture.experts * 3 * mixture.hidden * mixture.width


def test_a_refit_has_the_dense_block_beside_and_what_it_is_fitted_to() -> None:
    plain, fitted = account(MIXTURES[0]), account(MIXTURES[0], lanes=2, is_fitted=True)
    assert fitted.block > 1.5 * plain.block and fitted.states == 16 * MIXTURES[0].hidden * TOKENS.calibration


def test_the_page_has_what_the_estimate_says() -> None:
    text = Path("docs/experts.md").read_text()
    _, _, section = text.partition(f"<!-- {SECTION} -->\n")
    assert section.partition(f"\n<!-- /{SECTION} -->")[0] == page().strip()
