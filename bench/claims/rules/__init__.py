"""The claims, one file each: setup, setting, and the rule that decides, written before the run. None loads torch."""

from bench.claims.claim import Claim
from bench.claims.rules import (
    filter_norms,
    generalisation,
    granularity,
    optimal_brain_damage,
    optimal_brain_surgeon,
    prune_and_retrain,
    score_or_solve,
    sparse_and_few_bits,
    taylor_rankings,
    weights_and_connections,
)

CLAIMS: tuple[Claim, ...] = tuple(
    module.CLAIM
    for module in (
        optimal_brain_damage,
        prune_and_retrain,
        optimal_brain_surgeon,
        weights_and_connections,
        filter_norms,
        taylor_rankings,
        granularity,
        generalisation,
        score_or_solve,
        sparse_and_few_bits,
    )
)
"""In the order of the page; claim n is the n-th."""
