"""Claim 1: OBD against magnitude on the digit network, nothing retrained."""

import copy
from typing import Any

from bench.claims.networks import digit_network, outcome, prune, pruned
from bench.claims.record import Record

_AT_ONCE = 0.05
"""Share of the weights that goes before the curvature is taken anew."""
_CURVATURES = {"obd": "gauss_newton", "obd, squared error": "squared_error"}
_OBD: dict[str, Any] = {"rounds": 1, "retrain_steps": 0, "curvature_images": None}


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Loss and error after each share, by either method, and what OBD predicted."""
    data, dense = digit_network(seed, setting)
    before = outcome(dense, data.train)
    record.fact("dense training loss", before.loss)
    record.fact("dense test error", outcome(dense, data.test).error)
    in_turn = {line: copy.deepcopy(dense) for line in _CURVATURES}
    for sparsity in setting["sparsities"]:
        for line, model in in_turn.items():  # from where the share before left it
            for share in (sparsity - _AT_ONCE, sparsity):
                prune(model, "obd", share, data.train, curvature=_CURVATURES[line], **_OBD)
        at_once, scene = pruned(dense, "obd", sparsity, data.train, **_OBD)
        magnitude, _ = pruned(dense, "magnitude", sparsity, scope="model")
        for line, model in (in_turn | {"obd at once": at_once, "magnitude": magnitude}).items():
            record.point("loss", line, sparsity, outcome(model, data.train).loss)
            record.point("error", line, sparsity, outcome(model, data.test).error)
        increase = outcome(at_once, data.train).loss - before.loss
        record.point("prediction", "predicted", sparsity, scene.figures["rounds"][-1]["predicted_increase"])
        record.point("prediction", "actual", sparsity, increase)
