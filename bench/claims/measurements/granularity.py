"""Claim 7: single weights, n:m and filters of the network; weights, n:m, heads and channels of the language model."""

import copy
from typing import Any

from bench.claims.data import fashion_mnist
from bench.claims.language import Language
from bench.claims.networks import RETRAINING_RATE, VGG, layers, outcome, prune, train, trained
from bench.claims.record import Record

FIRST = "network.body.0"
_PATTERNS = {0.25: "3:4", 0.5: "2:4", 0.75: "1:4"}


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Both models."""
    _network(seed, setting, record)
    _language(seed, setting, record)


def _network(seed: int, setting: dict[str, Any], record: Record) -> None:
    data = fashion_mnist()
    dense = trained(VGG, data.train, seed)
    record.fact("dense error", outcome(dense, data.test).error)
    for share in setting["shares"]:
        for line in ("weights", "n:m", "filters"):
            model = copy.deepcopy(dense)
            before = model.num_parameters()
            later = [layer for layer in layers(model) if layer.name != FIRST]
            if line == "weights":
                prune(model, "magnitude", share, among=later, scope="tensor")
            elif line == "n:m":
                prune(model, "magnitude", share, pattern=_PATTERNS[share], among=later)
            else:
                prune(model, "filter-l1", share, data.train, pattern="structured", retrain_steps=0)
                record.fact(f"parameters removed as filters, {share:.0%} asked", 1 - model.num_parameters() / before)
            train(model, data.train, setting["retrain_steps"], RETRAINING_RATE, seed=seed)
            record.point("error", line, share, outcome(model, data.test).error)


def _language(seed: int, setting: dict[str, Any], record: Record) -> None:
    language = Language.opened(seed, samples=setting["samples"], length=setting["length"], windows=setting["windows"])
    for share in setting["language_shares"]:
        requests: dict[str, tuple[str, float, str]] = {
            "weights": ("wanda", share, "unstructured"),
            "n:m": ("wanda", share, _PATTERNS[share]),
            "heads and channels": ("llm-pruner", share * language.prunable_share, "structured"),
        }
        for line, request in requests.items():
            with language.pruned(*request, evaluations={"text": language.in_domain}) as pruned:
                record.point("perplexity", line, share, pruned.perplexity("text"))
                record.fact("SmolLM2: dense perplexity", pruned.result.perplexity["text"].dense)
