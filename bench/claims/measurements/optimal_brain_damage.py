"""Claim 1: OBD against magnitude on the digit network, nothing retrained."""

from typing import Any

from bench.claims.networks import digit_network, outcome, pruned
from bench.claims.record import Record

_AT_ONCE = 0.05
"""Share of the weights that goes before the curvature is taken anew."""


def methods(sparsity: float) -> dict[str, tuple[str, dict[str, Any]]]:
    """The lines of the plot: each with its method and that one's parameters."""
    in_turn = {"rounds": round(sparsity / _AT_ONCE), "retrain_steps": 0, "curvature_images": None}
    return {
        "obd": ("obd", in_turn),
        "obd at once": ("obd", in_turn | {"rounds": 1}),
        "obd, squared error": ("obd", in_turn | {"curvature": "squared_error"}),
        "magnitude": ("magnitude", {"scope": "model"}),
    }


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Loss and error after each share, by either method, and what OBD predicted."""
    data, dense = digit_network(seed, setting)
    before = outcome(dense, data.train)
    record.fact("dense training loss", before.loss)
    record.fact("dense test error", outcome(dense, data.test).error)
    for sparsity in setting["sparsities"]:
        for line, (method, parameters) in methods(sparsity).items():
            model, scene = pruned(dense, method, sparsity, data.train, **parameters)
            loss = outcome(model, data.train).loss
            record.point("loss", line, sparsity, loss)
            record.point("error", line, sparsity, outcome(model, data.test).error)
            if line == "obd at once":
                record.point("prediction", "predicted", sparsity, scene.figures["rounds"][-1]["predicted_increase"])
                record.point("prediction", "actual", sparsity, loss - before.loss)
