"""Claim 6: rankings against the oracle, and accuracy against FLOPs by each."""

import copy
from typing import Any

from bench.claims.data import IMAGE_SHAPE, fashion_mnist
from bench.claims.networks import RETRAINING_RATE, VGG, layers, outcome, prune, trained
from bench.claims.record import Record
from core.engine.datasets.subset import draw_images
from core.engine.evaluation.flops import count_flops
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.filters.rankings import RANKINGS, compare, rank
from core.engine.pruning.network import Network


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Correlations of the dense network's rankings; then filters removed by some of them, from share to share."""
    data = fashion_mnist()
    dense = trained(VGG, data.train, seed)
    record.fact("dense error", outcome(dense, data.test).error)
    images = draw_images(data.train, setting["images"], seed)
    scene, groups = Network(dense, layers(dense), images=images), CoupledChannels.of(dense, IMAGE_SHAPE)
    scores = {name: rank(name, scene, groups, images, seed) for name in RANKINGS}
    for name, correlations in compare(scores).items():
        record.point("correlation", name, "Spearman", correlations["all"])
    all_flops, all_parameters = count_flops(dense, IMAGE_SHAPE), dense.num_parameters()
    record.fact("dense MFLOPs for an image", all_flops / 1e6)
    for ranking in setting["rankings"]:
        model = copy.deepcopy(dense)
        for share in setting["shares"]:
            prune(
                model,
                "filter-taylor",
                0.0,
                data.train,
                pattern="structured",
                ranking=ranking,
                flops_reduction=1 - (1 - share) * all_flops / count_flops(model, IMAGE_SHAPE),
                filters_per_round=setting["filters_per_round"],
                measured_images=setting["images"],
                retrain_steps=setting["retrain_steps"],
                retrain_learning_rate=RETRAINING_RATE,
                seed=seed,
            )
            record.point("error", ranking, share, outcome(model, data.test).error)
            record.point("parameters", ranking, share, model.num_parameters() / all_parameters)
