"""Claim 4: LeNet-5 without retraining, in rounds against one shot, and layer by layer."""

from typing import Any

from bench.claims.data import fashion_mnist
from bench.claims.networks import LENET_5, RETRAINING_RATE, layers, outcome, prune, pruned, trained
from bench.claims.record import Record
from core.engine.architectures.layer_shape import LinearShape
from core.engine.datasets.subset import draw_images
from core.engine.pruning.iterative.layer_scan import layer_sensitivity_curves
from core.engine.pruning.network import Network

SCAN_IMAGES = 4000


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """All three parts."""
    data = fashion_mnist()
    dense = trained(LENET_5, data.train, seed)
    record.fact("dense error", outcome(dense, data.test).error)
    for sparsity in (*setting["sparsities"], *setting["high_sparsities"]):
        model, _ = pruned(dense, "magnitude", sparsity, scope="tensor")
        record.point("error", "no retraining", sparsity, outcome(model, data.test).error)
    rounds, steps = setting["rounds"], setting["retrain_steps"]
    for sparsity in setting["high_sparsities"]:
        for line, turns, each in (("iterative", rounds, steps), ("one shot, retrained", 1, rounds * steps)):
            model, _ = pruned(
                dense,
                "iterative-magnitude",
                sparsity,
                data.train,
                rounds=turns,
                retrain_steps=each,
                allocation="uniform",
                learning_rate=RETRAINING_RATE,
                batch_size=64,
                seed=seed,
            )
            record.point("error", line, sparsity, outcome(model, data.test).error)
    images = draw_images(data.train, SCAN_IMAGES, seed)
    scene = Network(dense, layers(dense), images=images)

    def alone(layer: LinearShape, rate: float) -> None:
        prune(dense, "magnitude", rate, among=[layer], scope="tensor")

    for name, points in layer_sensitivity_curves(scene, images, setting["rates"], alone).items():
        for rate, loss, _ in points:
            record.point("sensitivity", name.removeprefix("network."), rate, loss)
