"""Claim 3: OBS, OBD and magnitude without retraining: digits, XOR, the MONK problems."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedModel

from bench.claims.data import digits, monk, xor
from bench.claims.networks import Recipe, layers, outcome, prune, trained
from bench.claims.record import Record
from core.engine.datasets.image_set import ImageSet

METHODS = ("obs", "obd", "magnitude")
_HIDDEN_UNITS = {1: 3, 2: 2, 3: 2}
_TOLERATED = 0.01


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """All three parts."""
    _digits(seed, setting, record)
    _xor(seed, setting, record)
    for problem in _HIDDEN_UNITS:
        _monk(problem, seed, setting, record)


def _cut(
    dense: PreTrainedModel, method: str, sparsities: Sequence[float], images: ImageSet, at_once: int = 1
) -> Iterator[tuple[float, PreTrainedModel]]:
    """The network after each sparsity, without retraining, each from the one before; the curvature is taken anew after
    every `at_once` deletions.
    """
    model, weights, gone = copy.deepcopy(dense), sum(layer.numel for layer in layers(dense)), 0.0
    for sparsity in sparsities:
        options: dict[str, dict[str, Any]] = {
            "obs": {"mode": "exact", "reestimate_every": at_once, "curvature_images": None},
            "obd": {"rounds": 1, "retrain_steps": 0, "curvature_images": None},
            "magnitude": {"scope": "model"},
        }
        deletions = round(sparsity * weights) - round(gone * weights)
        turns = max(1, round(deletions / at_once)) if method == "obd" else 1
        for turn in range(1, turns + 1):
            prune(model, method, gone + (sparsity - gone) * turn / turns, images, **options[method])
        gone = sparsity
        yield sparsity, model


def _digits(seed: int, setting: dict[str, Any], record: Record) -> None:
    data = digits(seed, enlarged=False)
    network = {"network": "mlp", "hidden_sizes": [16], "image_size": 8, "num_labels": 10}
    dense = trained(Recipe("small digits", network, setting["steps"], setting["learning_rate"]), data.train, seed)
    record.fact("digits: dense training loss", outcome(dense, data.train).loss)
    for method in METHODS:
        for sparsity, model in _cut(dense, method, setting["sparsities"], data.train, setting["at_once"]):
            record.point("loss", method, sparsity, outcome(model, data.train).loss)


def _xor(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Networks that learnt XOR; a draw that did not is left out and counted."""
    cases = xor()
    network = {"network": "mlp", "hidden_sizes": [2], "num_channels": 2, "image_size": 1, "num_labels": 2}
    recipe = Recipe("xor", network, setting["xor_steps"], learning_rate=0.02, batch_size=4)
    found: list[PreTrainedModel] = []
    for number in itertools.count():
        dense = trained(recipe, cases, seed * 1000 + number)
        if outcome(dense, cases).error == 0:
            found.append(dense)
        if len(found) == setting["xor_networks"]:
            record.fact("XOR: networks that did not learn it, left out", number + 1 - len(found))
            break
    for method in METHODS:
        cut = [model for each in found for _, model in _cut(each, method, [setting["xor_sparsity"]], cases)]
        solved = [outcome(model, cases).error == 0 for model in cut]
        record.point("xor", method, "solved", sum(solved) / len(solved))


def _monk(problem: int, seed: int, setting: dict[str, Any], record: Record) -> None:
    data = monk(problem, seed)
    name = f"MONK-{problem}"
    network = {
        "network": "mlp",
        "hidden_sizes": [_HIDDEN_UNITS[problem]],
        "num_channels": 17,
        "image_size": 1,
        "num_labels": 2,
    }
    dense = trained(Recipe(name, network, setting["monk_steps"], learning_rate=0.02), data.train, seed)
    limit = outcome(dense, data.train).error + _TOLERATED
    record.fact(f"{name}: dense test error", outcome(dense, data.test).error)
    for method in METHODS:
        share, error = 0.0, outcome(dense, data.test).error
        for sparsity, model in _cut(dense, method, setting["monk_sparsities"], data.train):
            if outcome(model, data.train).error > limit:
                break
            share, error = sparsity, outcome(model, data.test).error
        record.point("monks", method, name, share)
        record.point("monk_error", method, name, error)
