"""Claim 9: seconds and perplexity of Wanda and SparseGPT."""

from typing import Any

from bench.claims.language import Language
from bench.claims.record import Record


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Each method twice: with an evaluation for its perplexity, and without for its seconds."""
    language = Language.opened(seed, samples=setting["samples"], length=setting["length"], windows=setting["windows"])
    sparsity = setting["sparsity"]
    place = f"{sparsity * 100:.0f} %"
    for method in ("wanda", "sparsegpt"):
        with language.pruned(method, sparsity, evaluations={"text": language.in_domain}) as pruned:
            record.point("perplexity", method, place, pruned.perplexity("text"))
            record.fact("dense perplexity", pruned.result.perplexity["text"].dense)
        with language.pruned(method, sparsity, evaluations={}) as pruned:
            record.point("seconds", method, place, pruned.seconds)
