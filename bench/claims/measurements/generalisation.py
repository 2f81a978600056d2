"""Claim 8: the gap between test and training against sparsity, and the language model in and out of its domain."""

import copy
import tempfile
from pathlib import Path
from typing import Any

from bench.claims.data import fashion_mnist
from bench.claims.language import Language, recall
from bench.claims.networks import LENET_5, RETRAINING_RATE, outcome, pruned, train, trained
from bench.claims.record import Record, knee
from core.engine.datasets.subset import draw_images

_TRAINING_IMAGES = 10_000
_DOMAINS = {"in domain": "in-domain perplexity", "out of domain": "out-of-domain perplexity"}


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Both models."""
    _network(seed, setting, record)
    _language(seed, setting, record)


def _network(seed: int, setting: dict[str, Any], record: Record) -> None:
    data = fashion_mnist()
    known = draw_images(data.train, _TRAINING_IMAGES, seed=0)
    dense = trained(LENET_5, data.train, seed)
    control = copy.deepcopy(dense)
    train(control, data.train, setting["rounds"] * setting["retrain_steps"], RETRAINING_RATE, seed=seed)
    test, training = outcome(control, data.test).error, outcome(control, known).error
    record.fact("dense error, trained as long", test)
    record.fact("dense gap, trained as long", test - training)
    record.fact("dense error", outcome(dense, data.test).error)
    for sparsity in setting["sparsities"]:
        model, _ = pruned(
            dense,
            "iterative-magnitude",
            sparsity,
            data.train,
            rounds=setting["rounds"],
            retrain_steps=setting["retrain_steps"],
            learning_rate=RETRAINING_RATE,
            batch_size=64,
            seed=seed,
        )
        after, seen = outcome(model, data.test).error, outcome(model, known).error
        record.point("error", "test", sparsity, after)
        record.point("error", "training", sparsity, seen)
        record.point("gap", "pruned", sparsity, after - seen)
    record.fact("knee of test error", knee(record.points("error", "test"), test + setting["tolerated_points"]))


def _language(seed: int, setting: dict[str, Any], record: Record) -> None:
    language = Language.opened(seed, samples=setting["samples"], length=setting["length"], windows=setting["windows"])
    evaluations = {"in domain": language.in_domain, "out of domain": language.out_of_domain}
    with tempfile.TemporaryDirectory() as place:
        right, error = recall(language.folder, language.questions, setting["questions"], Path(place))
    record.point("recall", "ARC-Easy", 0.0, right)
    for sparsity in setting["language_sparsities"]:
        with language.pruned("wanda", sparsity, evaluations=evaluations) as pruned_model:
            for name, pair in pruned_model.result.perplexity.items():
                if sparsity == setting["language_sparsities"][0]:
                    record.point("perplexity", name, 0.0, pair.dense)
                record.point("perplexity", name, sparsity, pair.pruned)
            record.point("recall", "ARC-Easy", sparsity, pruned_model.recall(setting["questions"])[0])
    for name, fact in _DOMAINS.items():
        points = record.points("perplexity", name)
        record.fact(f"knee of {fact}", knee(points, setting["tolerated_ratio"] * points[0][1]))
    wrong = [(x, 1 - y) for x, y in record.points("recall", "ARC-Easy")]
    record.fact("knee of recall", knee(wrong, 1 - right + error))
