"""Claim 1: OBD against magnitude on the digit network, nothing retrained."""

from typing import Any

from bench.claims.networks import digit_network, outcome, pruned
from bench.claims.record import Record

_ONE_SHOT = {"rounds": 1, "retrain_steps": 0, "curvature_images": None}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "obd": ("obd", _ONE_SHOT),
    "obd, squared error": ("obd", _ONE_SHOT | {"curvature": "squared_error"}),
    "magnitude": ("magnitude", {"scope": "model"}),
}


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Loss and error after each share, by either method, and what OBD predicted."""
    data, dense = digit_network(seed, setting)
    before = outcome(dense, data.train)
    record.fact("dense training loss", before.loss)
    record.fact("dense test error", outcome(dense, data.test).error)
    for sparsity in setting["sparsities"]:
        for line, (method, parameters) in METHODS.items():
            model, scene = pruned(dense, method, sparsity, data.train, **parameters)
            loss = outcome(model, data.train).loss
            record.point("loss", line, sparsity, loss)
            record.point("error", line, sparsity, outcome(model, data.test).error)
            if line == "obd":
                record.point("prediction", "predicted", sparsity, scene.figures["rounds"][-1]["predicted_increase"])
                record.point("prediction", "actual", sparsity, loss - before.loss)
